"""The page finds what the Predictor finds, and is for this computer only."""

import io
import json
import shutil
import threading
import time

import lively
import numpy as np
import pytest

from ap10k_jax.predict import Predictor

pytest.importorskip("flask", reason="the extra demo")

from ap10k_jax import demo


@pytest.fixture(scope="module")
def predictor(nano, tmp_path_factory):
    folder = lively.export(tmp_path_factory.mktemp("checkpoint") / "exported")
    return Predictor.load(folder, batch_sizes=(1,))


@pytest.fixture
def client(predictor):
    return demo.app(predictor).test_client()


@pytest.fixture(scope="module")
def photograph(synthetic_dir):
    return sorted((synthetic_dir / "drawn").rglob("*.jpg"))[0]


def ask(client, content, boxes=None, **options):
    form = {"photograph": (io.BytesIO(content), "fox.jpg"), "boxes": json.dumps(boxes)}
    return client.post("/predict", data=form, **options)


@pytest.mark.parametrize("boxes", [None, [[5, 6, 100, 90], [20, 20, 60, 60]]])
def test_answers_are_the_predictors(client, predictor, photograph, boxes):
    answer = ask(client, photograph.read_bytes(), boxes)
    assert answer.status_code == 200
    expected = predictor(photograph, boxes)
    assert len(answer.json["animals"]) == len(expected)
    for animal, wanted in zip(answer.json["animals"], expected, strict=True):
        np.testing.assert_allclose(animal["keypoints"], wanted.keypoints, atol=1e-3)
        np.testing.assert_allclose(animal["box"], wanted.box)


@pytest.mark.parametrize(
    ("content", "boxes", "message"),
    [
        (b"", None, "0 bytes"),
        (b"text", None, "decoded"),
        (None, [[0, 0, 0, 5]], "no area"),
        (None, [1, 2, 3], "reshape"),
        (None, {"a": 1}, ""),
    ],
)
def test_what_cannot_be_is_answered_not_crashed_on(client, photograph, content, boxes, message):
    answer = ask(client, photograph.read_bytes() if content is None else content, boxes)
    assert answer.status_code == 400
    assert message in answer.json["error"]


def test_nothing_without_a_photograph(client):
    assert client.post("/predict").status_code == 400


def test_other_names_for_this_computer_are_refused(client, photograph):
    assert client.get("/", headers={"Host": "127.0.0.1:8000"}).status_code == 200
    assert client.get("/", headers={"Host": "evil.example"}).status_code == 400


def test_listens_on_loopback_unless_asked(predictor, monkeypatch):
    calls = []
    monkeypatch.setattr(demo.predict.Predictor, "load", lambda *a, **k: predictor)
    monkeypatch.setattr(demo.flask.Flask, "run", lambda self, host, *a, **k: calls.append(host))
    demo.main(["checkpoint"])
    demo.main(["checkpoint", "--host=0.0.0.0"])
    assert calls == ["127.0.0.1", "0.0.0.0"]


@pytest.fixture
def browser(tmp_path):
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium drives the browser")
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        pytest.skip("needs chromium and chromedriver (apt-get install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    for flag in (
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--window-size=1000,900",
    ):
        options.add_argument(flag)
    options.binary_location = shutil.which("chromium")
    options.add_experimental_option("prefs", {"download.default_directory": str(tmp_path)})
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    driver = webdriver.Chrome(options=options, service=service)
    yield driver
    driver.quit()


@pytest.fixture
def address(predictor):
    from werkzeug.serving import make_server

    server = make_server("127.0.0.1", 0, demo.app(predictor), threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.port}/"
    server.shutdown()
    thread.join()


COUNT = """
const c = document.getElementById("canvas");
const d = c.getContext("2d").getImageData(0, 0, c.width, c.height).data;
let n = 0;
for (let i = 0; i < d.length; i += 4)
  if (d[i] > 225 && Math.abs(d[i+1] - 140) < 25 && d[i+2] < 40) n++;
return n;"""


@pytest.mark.slow
def test_in_a_browser(browser, address, predictor, photograph, tmp_path):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    def state(wanted):
        def reached(driver):
            return driver.find_element(By.TAG_NAME, "body").get_attribute("data-state") == wanted

        WebDriverWait(browser, 30).until(reached)

    def threshold(value):
        browser.execute_script(
            "const t = document.getElementById('threshold'); t.value = arguments[0];"
            "t.dispatchEvent(new Event('input'));",
            value,
        )

    browser.get(address)
    browser.find_element(By.ID, "file").send_keys(str(photograph))
    state("done")
    assert browser.find_element(By.ID, "status").text.startswith("1 animal")
    assert browser.execute_script(COUNT) > 0  # the left joints' orange

    canvas = browser.find_element(By.ID, "canvas")
    for _ in range(2):
        mouse = ActionChains(browser).move_to_element_with_offset(canvas, -60, -60)
        mouse.click_and_hold().move_by_offset(120, 110).release().perform()
        time.sleep(0.2)
        state("done")
    assert browser.find_element(By.ID, "status").text.startswith("2 animals")

    browser.find_element(By.ID, "save").click()
    target = tmp_path / f"{photograph.stem}-keypoints.json"
    WebDriverWait(browser, 10).until(lambda _: target.exists() and target.read_text())
    saved = json.loads(target.read_text())
    assert saved["file"] == photograph.name
    (expected,) = predictor(photograph, saved["animals"][0]["box"])
    np.testing.assert_allclose(saved["animals"][0]["keypoints"], expected.keypoints, atol=1e-3)

    # weak joints are hidden; a random network's lie on a heap, so they are spread out here
    browser.execute_script(
        "for (const animal of result.animals)"
        "  animal.keypoints = animal.keypoints.map((_, i) => [20 + 9 * i, 40 + 30 * (i % 3), 0.4])"
    )
    threshold(0.35)
    assert browser.execute_script(COUNT) > 20
    threshold(0.45)
    assert browser.execute_script(COUNT) == 0
    browser.save_screenshot(str(tmp_path / "page.png"))

    browser.find_element(By.ID, "whole").click()
    time.sleep(0.2)
    state("done")
    assert browser.find_element(By.ID, "status").text.startswith("1 animal")

    broken = tmp_path / "broken.jpg"
    broken.write_text("no photograph")
    browser.find_element(By.ID, "file").send_keys(str(broken))
    WebDriverWait(browser, 10).until(
        lambda _: "no picture" in browser.find_element(By.ID, "status").text
    )
    severe = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert severe == []
