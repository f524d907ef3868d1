"""The page in a real browser: what a reader types, sees and presses, and what is said when something fails.

Where an error, another script or a slow answer is wanted, the browser's request is answered by the test instead.
"""

import json
import os
import re
import shutil
import subprocess

import numpy as np
import pytest
from playwright.sync_api import expect

from tests.serve_app.page_window import CONTRAST, TEXT, ask, drop, finished, invert, sent_vector

pytest_plugins = ["tests.serve_app.page_window"]
pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]

PHONE = {"width": 360, "height": 740}
ARABIC = "وصلت رسالة الطبيب أمس"


def answer_stream(page, passes, text, **result):
    """The next inversions of a page are answered with these passes and this text."""
    tokens = [{"id": 1, "token": text, "confidence": 0.9, "probability": None}]
    result = {
        "text": text,
        "confidence": 0.9,
        "probability": None,
        "cosine": None,
        "steps": 2,
        "tokens": tokens,
    } | result
    answer = {"model": "minilm", "version": "0", "encoder": "x", "milliseconds": 1, "model_milliseconds": 1}
    events = [("pass", {"index": 0, "step": at + 1, "tokens": tokens}) for at, tokens in enumerate(passes)]
    events.append(("result", answer | {"results": [result]}))
    body = "".join(f"event: {name}\ndata: {json.dumps(data)}\n\n" for name, data in events)
    page.route("**/stream", lambda route: route.fulfill(content_type="text/event-stream", body=body))


def test_a_text_is_typed_inverted_and_seen(page, base_url, keep):
    invert(page)
    vector = ask(base_url, "/encode/minilm", {"text": TEXT})["embeddings"][0]
    (expected,) = ask(base_url, "/invert/minilm", {"embedding": vector})["results"]
    expect(page.locator("#original-text")).to_have_text(TEXT)
    assert page.locator("#recovered-text").text_content() == expected["text"]
    own = np.float32(ask(base_url, "/encode/minilm", {"text": expected["text"]})["embeddings"][0])
    cosine = own @ np.float32(vector) / np.linalg.norm(own) / np.linalg.norm(vector)
    expect(page.locator("[data-measure=Cosine] dd")).to_contain_text(f"{cosine:.4f}".replace("-", "−"))
    expect(page.locator("[data-measure=Time] dd")).to_contain_text(" ms")
    expect(page.locator("[data-measure=Confidence] dd")).to_contain_text(" %")
    expect(page.locator("#vector-facts")).to_contain_text("384 components · norm 1")
    assert page.locator("#histogram rect").count() > 8
    np.testing.assert_allclose(sent_vector(page), vector, rtol=1e-6)
    page.click("summary:has-text('Token by token')")
    assert page.locator("#token-rows tr").count() == len(expected["tokens"])
    expect(page.locator("#stage .place")).to_have_count(0)  # played to the end
    keep(page, "light")


def test_the_passes_can_be_gone_through_back_and_forth(page):
    invert(page)
    slider, name, hidden = page.locator("#slider"), page.locator("#pass"), page.locator("#stage .place")
    last = int(slider.get_attribute("max"))
    assert last >= 1
    slider.focus()
    page.keyboard.press("Home")
    expect(name).to_contain_text("Pass 1 of")
    assert hidden.count() > 0
    assert page.locator("#stage .token").count() > 0
    page.keyboard.press("ArrowRight")
    expect(slider).to_have_value("1")
    page.locator("#forth").focus()
    page.keyboard.press("ArrowLeft")
    expect(slider).to_have_value("0")
    page.click("#play")
    expect(page.locator("#play")).to_have_attribute("aria-label", "Pause")
    expect(slider).to_have_value(str(last))
    expect(hidden).to_have_count(0)
    assert page.locator("#stage").text_content().strip() == page.locator("#recovered-text").text_content().strip()


@pytest.mark.parametrize(
    ("field", "value"), [("steps", "0"), ("steps", "513"), ("steps", ""), ("seed", "-1"), ("seed", "1.5")]
)
def test_a_wrong_setting_is_named_and_focused(page, field, value):
    page.fill("#text", TEXT)
    page.fill(f"#{field}", value)
    page.click("#invert")
    expect(page.locator("#error")).to_contain_text("give a whole number from")
    expect(page.locator(f"#{field}")).to_be_focused()


def test_the_servers_own_sentence_is_shown(opened):
    page = opened(expect_errors=["422"])
    page.route("**/stream", lambda route: route.continue_(post_data='{"embedding": [1, 2]}'))
    page.fill("#text", TEXT)
    page.click("#invert")
    expect(page.locator("#error")).to_contain_text("embedding has 2 dimensions, but this inverter takes 384")
    page.unroute("**/stream")
    invert(page)  # and then it goes on
    expect(page.locator("#error")).to_be_hidden()


def test_each_way_to_fail_has_its_sentence(opened, keep):
    page = opened(expect_errors=["429", "ERR_FAILED"])
    full = {"status": 429, "headers": {"Retry-After": "7"}, "json": {"detail": "the queue is full"}}
    lost = 'event: error\ndata: {"status": 503, "detail": "the replica was lost"}\n\n'
    page.fill("#text", TEXT)
    for answer, sentence in (
        (lambda route: route.fulfill(**full), "the queue is full\nTry again in 7 s."),
        (lambda route: route.fulfill(content_type="text/event-stream", body=lost), "the replica was lost"),
        (lambda route: route.fulfill(content_type="text/event-stream", body=""), "ended before the result"),
        (lambda route: route.abort(), "cannot be reached"),
    ):
        page.unroute("**/stream")
        page.route("**/stream", answer)
        page.click("#invert")
        expect(page.locator("#error")).to_contain_text(sentence)
        expect(page.locator("#cancel")).to_be_disabled()
    keep(page, "error")


def test_a_running_inversion_can_be_cancelled(page):
    page.route("**/stream", lambda route: None)  # never answered
    page.fill("#text", TEXT)
    page.click("#invert")
    page.click("#cancel")
    expect(page.locator("#status")).to_have_text("Cancelled after 0 passes.")
    expect(page.locator("#invert")).to_be_focused()
    page.click("#invert")
    expect(page.locator("#cancel")).to_be_enabled()
    page.keyboard.press("Escape")
    expect(page.locator("#status")).to_have_text("Cancelled after 0 passes.")


def test_the_key_is_asked_for_kept_in_the_tab_and_sent(opened):
    def guard(route):
        if route.request.headers.get("authorization") == "Bearer secret":
            answer = route.fetch()
            return route.fulfill(response=answer, json=answer.json() | {"key_required": True})
        return route.fulfill(status=401, json={"detail": "send a key"}, headers={"WWW-Authenticate": "Bearer"})

    page = opened(expect_errors=["401"], before=lambda page: page.route("**/encoders", guard))
    expect(page.locator("#error")).to_have_text("An API key is needed: send a key")
    page.fill("#key", "wrong")
    page.click("#use-key")
    expect(page.locator("#error")).to_contain_text("The API key was not accepted")
    page.fill("#key", "secret")
    page.keyboard.press("Enter")
    expect(page.locator("#status")).to_have_text("Ready.")
    with page.expect_request("**/encode/minilm") as caught:
        invert(page)
    assert caught.value.headers["authorization"] == "Bearer secret"
    assert '"Authorization: Bearer $EMBINV_API_KEY"' in page.locator("#curl").text_content()
    assert "secret" not in page.content() and page.evaluate("localStorage.length") == 0


def test_the_curl_command_is_copied_whole_and_works(opened):
    page = opened(permissions=["clipboard-read", "clipboard-write"])
    page.fill("#seed", "3")
    invert(page)
    page.click("#copy")
    expect(page.locator("#copy")).to_have_text("Copied")
    command = page.evaluate("navigator.clipboard.readText()")
    assert command == page.locator("#curl").text_content()
    if shutil.which("curl") is None:
        pytest.skip("there is no curl")
    done = subprocess.run(
        ["bash", "-c", command],
        capture_output=True,
        text=True,
        check=True,
        env={"NO_PROXY": "*", "PATH": os.environ["PATH"]},
    )
    assert json.loads(done.stdout)["results"][0]["text"] == page.locator("#recovered-text").text_content()


def test_candidates_bring_their_settings(page):
    page.select_option("#strategy", "candidates")
    page.fill("#candidates", "3")
    with page.expect_request("**/stream") as caught:
        invert(page)
    body = caught.value.post_data_json
    assert (body["strategy"], body["candidates"]) == ("candidates", 3) and "refine" not in body
    expect(page.locator("#provenance")).to_contain_text("candidates · 8 steps · 3 candidates · seed 0")


@pytest.mark.parametrize("strategy", ["confidence", "candidates"])
def test_a_text_of_any_strategy_is_refined_and_each_correction_seen(page, strategy, keep):
    page.select_option("#strategy", strategy)
    expect(page.locator("#refine-steps")).to_be_hidden()
    page.check("#refine")
    page.fill("#refine-steps", "2")
    page.fill("#refine-beam", "3")
    expect(page.locator("#refine-help")).to_contain_text(
        "closest candidate" if strategy == "candidates" else "the text"
    )
    with page.expect_request("**/stream") as caught:
        invert(page)
    assert caught.value.post_data_json["refine"] == {"steps": 2, "beam": 3}
    assert json.loads(page.locator("#curl").text_content().split("-d '")[1][:-1])["refine"] == {"steps": 2, "beam": 3}
    expect(page.locator("#provenance")).to_contain_text("up to 2 corrections, 3 texts held · seed 0")
    cosine = page.locator("[data-measure=Cosine] dd").evaluate("(e) => e.firstChild.textContent")
    calls = page.locator("[data-measure='Encoder calls'] dd").evaluate("(e) => e.firstChild.textContent")
    assert 1 <= int(calls) <= 4 + 2 * 9
    slider = page.locator("#slider")
    slider.focus()
    page.keyboard.press("End")
    expect(page.locator("#pass")).to_have_text(re.compile(rf"(Correction [12]|Before corrections), cosine {cosine}$"))
    assert page.locator("#stage").text_content().strip() == page.locator("#recovered-text").text_content().strip()
    page.keyboard.press("Home")
    expect(page.locator("#pass")).to_contain_text("Pass 1 of")
    if strategy == "confidence":
        keep(page, "refined")


def test_an_unrefined_text_has_no_encoder_calls(page):
    invert(page)
    expect(page.locator("[data-measure='Steps taken'] dd")).to_be_visible()
    expect(page.locator("[data-measure='Encoder calls']")).to_have_count(0)


@pytest.mark.parametrize(("field", "value"), [("refine-steps", "21"), ("refine-steps", "-1"), ("refine-beam", "0")])
def test_a_wrong_setting_of_refining_is_named_only_where_it_refines(page, field, value):
    page.fill("#text", TEXT)
    page.check("#refine")
    page.fill(f"#{field}", value)
    page.click("#invert")
    expect(page.locator("#error")).to_contain_text("give a whole number from")
    expect(page.locator(f"#{field}")).to_be_focused()
    page.uncheck("#refine")
    invert(page)
    expect(page.locator("#error")).to_be_hidden()


def test_where_the_encoder_is_not_served_nothing_is_refined(opened):
    def without(route):
        answer = route.fetch()
        listed = answer.json()
        listed["encoders"][0]["encode"] = False
        route.fulfill(response=answer, json=listed)

    page = opened(before=lambda page: page.route("**/encoders", without))
    expect(page.locator("#status")).to_have_text("Ready.")
    expect(page.locator("#refine")).to_be_disabled()
    expect(page.locator("#refine-help")).to_have_text("Needs the encoder, and it is not served here.")


def test_the_documentation_lists_what_refine_takes(page, base_url):
    page.goto(base_url + "/docs")
    expect(page.locator("#status")).to_contain_text("routes.")
    names = page.locator("section:has(h2:has-text('/invert/{encoder}')) th").all_text_contents()
    assert {"refine", "refine.steps", "refine.beam", "results[].encoder_calls"} <= set(names)


def test_everything_is_done_by_keyboard_alone(page):
    def tab_to(target):
        for _ in range(40):
            page.keyboard.press("Tab")
            if page.locator(":focus").count() and page.locator(":focus").get_attribute("id") == target:
                return
        raise AssertionError(f"{target} is not reached")

    tab_to("text")
    page.keyboard.type(TEXT)
    tab_to("invert")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    finished(page)
    tab_to("slider")
    page.keyboard.press("Home")
    expect(page.locator("#slider")).to_have_attribute(
        "aria-valuetext", re.compile(r"Pass 1 of \d+, \d+ of \d+ places known")
    )
    tab_to("copy")
    tab_to("encoder")  # around and in again: nothing traps the focus
    unnamed = """[...document.querySelectorAll("input, select, textarea, button")]
        .filter((e) => !(e.labels?.length || e.getAttribute("aria-label") || e.textContent.trim())).map((e) => e.id)"""
    assert page.evaluate(unnamed) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_contrast(opened, scheme, keep):
    page = opened(color_scheme=scheme, reduced_motion="reduce")
    invert(page)
    page.click("summary:has-text('Token by token')")
    page.select_option("#strategy", "candidates")
    page.check("#refine")
    assert page.evaluate(CONTRAST) == []
    if scheme == "dark":
        keep(page, "dark")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(17, 21, 22)"
    drop(page, "v.json", b"[1]")
    expect(page.locator("#vector-error")).to_be_visible()
    assert page.evaluate(CONTRAST) == []


def test_a_phone_needs_no_scrolling_sideways(opened, keep):
    page = opened(viewport=PHONE, has_touch=True, is_mobile=True)
    wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.evaluate(wide) == 0
    invert(page, "an unbreakable " + "w" * 200)
    expect(page.locator("#stage")).to_be_in_viewport()
    for summary in page.locator("summary:visible").all():
        summary.click()
    page.select_option("#strategy", "candidates")
    page.check("#refine")
    assert page.evaluate(wide) == 0
    keep(page, "phone")
    drop(page, "x" * 100 + ".json", json.dumps([[0.5] * 384] * 2).encode())
    expect(page.locator("#row")).to_be_visible()
    assert page.evaluate(wide) == 0


def test_arabic_runs_from_right_to_left_and_its_letters_join(page, keep):
    tokens = [{"text": text, "confidence": 0.9} for text in ("وصلت", " رسا", "لة", " الطبيب")]
    answer_stream(page, [[tokens[0], {"text": None, "confidence": None}], tokens], "وصلت رسالة الطبيب")
    invert(page, ARABIC)
    expect(page.locator("#stage")).to_have_text("وصلت رسالة الطبيب")
    for place in ("#text", "#stage", "#original-text", "#recovered-text"):
        assert page.locator(place).get_attribute("dir") == "auto"
        assert page.locator(place).evaluate("(e) => getComputedStyle(e).direction") == "rtl", place
    joined = page.locator("#stage .token").nth(1)
    for edge in ("margin", "padding", "borderWidth", "letterSpacing"):
        assert joined.evaluate(f"(e) => getComputedStyle(e).{edge}") in ("0px", "normal")
    assert page.locator("#original-text del").all_text_contents() == ["أمس"]
    keep(page, "rtl")


def test_chinese_and_japanese_are_compared_word_by_word(page):
    answer_stream(page, [], "昨日の会議で鈴木さんが発表しました。")
    invert(page, "昨日の会議で田中さんが発表しました。")
    assert page.locator("#original-text del").all_text_contents() == ["田中"]
    assert page.locator("#recovered-text ins").all_text_contents() == ["鈴木"]
    expect(page.locator("#pass")).to_have_text("Result")


def test_markup_in_a_text_stays_text(page):
    markup = "<img src=x onerror=alert(1)> <b>bold</b> 'quoted'"
    answer_stream(page, [[{"text": markup, "confidence": 0.2}]], markup)
    invert(page, markup)
    for place in ("#stage", "#original-text", "#recovered-text"):
        expect(page.locator(place)).to_have_text(markup)
    assert page.locator("main img, main b").count() == 0


def test_with_less_motion_nothing_plays_by_itself(opened):
    page = opened(reduced_motion="reduce")
    invert(page)
    slider = page.locator("#slider")
    assert slider.input_value() == slider.get_attribute("max")
    assert page.locator("#stage .token").first.evaluate("(e) => getComputedStyle(e).animationName") == "none"
    expect(page.locator("#play")).to_have_attribute("aria-label", "Play the passes")
