"""AP-10K as a TensorFlow data set, readable without TensorFlow."""
