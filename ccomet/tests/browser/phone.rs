//! The chat on a phone: its text is legible, and its controls are on the screen.

use serde_json::{Value, json};

use crate::chromium::{Chromium, Page};
use crate::common::Process;
use crate::{chat, send};

/// Forty letters of the widest kind.
const NAME: &str = "WWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWW";
const TEXT: &str = "A message of some words that are not long";

/// Measures the contrast of all text on a page with its background, and returns the places below
/// 4.5 with their values.
pub(crate) const FAINT: &str = r"(() => {
    const numbers = (colour) => {
        const found = colour.match(/[\d.]+/g).map(Number);
        const scale = colour.startsWith('color(') ? 1 : 255;
        return { rgb: found.slice(0, 3).map((value) => value / scale), alpha: found[3] ?? 1 };
    };
    const over = (above, alpha, below) => above.map((value, index) => value * alpha + below[index] * (1 - alpha));
    const linear = (value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
    const light = (rgb) => rgb.map(linear).reduce((sum, value, index) => sum + value * [0.2126, 0.7152, 0.0722][index], 0);
    const contrast = (one, other) => {
        const [low, high] = [light(one), light(other)].sort((a, b) => a - b);
        return (high + 0.05) / (low + 0.05);
    };
    // Returns the background of an element and the colour of its text, as seen through translucent
    // layers.
    const seen = (element, colour) => {
        const chain = [];
        for (let at = element; at; at = at.parentElement) chain.push(getComputedStyle(at));
        let behind = [1, 1, 1];
        let text = null;
        const groups = chain.reverse();
        const paint = (index) => {
            if (index === groups.length) return { behind, text: over(colour.rgb, colour.alpha, behind) };
            const before = behind;
            const own = numbers(groups[index].backgroundColor);
            behind = over(own.rgb, own.alpha, behind);
            const inner = paint(index + 1);
            const opacity = Number(groups[index].opacity);
            return { behind: over(inner.behind, opacity, before), text: over(inner.text, opacity, before) };
        };
        text = paint(0);
        return text;
    };
    const faint = [];
    const judge = (element, colour, what) => {
        const { behind, text } = seen(element, numbers(colour));
        const ratio = contrast(text, behind);
        if (ratio < 4.5) faint.push(`${what}: ${ratio.toFixed(2)}`);
    };
    const judgeAll = () => {
        for (const element of document.querySelectorAll('body *')) {
            if (!element.checkVisibility() || element.closest('svg, script, style')) continue;
            const style = getComputedStyle(element);
            const hasText = [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
            const where = `${element.tagName} ${element.id} ${element.className} ${element.textContent.slice(0, 20)}`;
            if (hasText || element.dataset.initial || element.value) judge(element, style.color, where);
            if (element.placeholder) judge(element, getComputedStyle(element, '::placeholder').color, `${where} placeholder`);
        }
    };
    judgeAll();
    // Each colour that a name may have.
    for (const node of document.querySelectorAll('.message')) {
        const held = node.style.getPropertyValue('--hue');
        for (let hue = 0; hue < 360; hue += 3) {
            node.style.setProperty('--hue', hue);
            for (const part of node.querySelectorAll('.who, .face')) {
                if (part.checkVisibility()) judge(part, getComputedStyle(part).color, `${part.className} of hue ${hue}`);
            }
        }
        node.style.setProperty('--hue', held);
    }
    return faint;
})()";

/// Returns elements that do not fit: wider than the screen, squeezed, or outside of it.
const MISFITS: &str = r"(() => {
    const found = [];
    const log = document.querySelector('#log');
    if (document.documentElement.scrollWidth > innerWidth) found.push('the page is wider than the screen');
    if (log.scrollWidth > log.clientWidth) found.push('the messages are wider than the screen');
    for (const part of document.querySelectorAll('header > *, #composer > button, .message .what, .message .note button')) {
        if (!part.checkVisibility()) continue;
        const { left, right } = part.getBoundingClientRect();
        if (left < 0 || right > innerWidth) found.push(`${part.id || part.className} from ${left} to ${right}`);
    }
    for (const part of document.querySelectorAll('.message[data-kind=say] .what')) {
        const { width } = part.getBoundingClientRect();
        if (width < innerWidth / 2) found.push(`a message is ${width} wide`);
    }
    return found;
})()";

fn shoot(browser: &mut Chromium, page: &Page, name: &str) {
    use base64::Engine;
    let Some(folder) = std::env::var_os("CCOMET_TEST_SCREENSHOTS") else { return };
    let png = base64::engine::general_purpose::STANDARD.decode(browser.screenshot(page)).expect("base64");
    std::fs::write(std::path::Path::new(&folder).join(format!("{name}.png")), png).expect("a file");
}

pub(crate) fn assert_none(browser: &mut Chromium, page: &Page, what: &str, place: &str) {
    // A new message is faint until its animation ends.
    browser.wait(page, "document.getAnimations().every((one) => one.playState === 'finished')");
    assert_eq!(browser.eval(page, what), json!([]), "{place}");
}

pub(crate) fn long_names_and_refused_messages_fit_the_screen_of_a_phone() {
    let mut browser = Chromium::start();
    let server = Process::start("[limits]\nmessage_bytes_max = 400\n", &["--loops", "1"]);
    for (width, colours) in [(320, "light"), (320, "dark"), (390, "light"), (390, "dark")] {
        let place = format!("{width}-{colours}");
        let url = |name: &str| format!("{}&room={place}", chat(server.front, name, "sse"));
        let (ann, bob) = (browser.open(&url(NAME)), browser.open(&url(&NAME.to_lowercase())));
        for page in [&ann, &bob] {
            browser.set_screen(page, width, colours);
            browser.wait(page, "document.querySelector('#state').dataset.state === 'open'");
        }
        for page in [&bob, &ann] {
            send(&mut browser, page, TEXT);
            browser.wait(page, "document.querySelector('.own:not([data-status])')");
        }
        send(&mut browser, &ann, &"This is longer than the server takes. ".repeat(15));
        browser.wait(&ann, "document.querySelectorAll('.own[data-status=refused] .note button').length === 2");
        browser.wait(&ann, "document.querySelectorAll('.message[data-kind=say]').length === 3");
        browser.wait(&ann, "document.getAnimations().every((one) => one.playState === 'finished')");
        shoot(&mut browser, &ann, &place);
        assert_none(&mut browser, &ann, MISFITS, &place);
        assert_none(&mut browser, &bob, MISFITS, &place);
        let hidden = "[...document.querySelectorAll('.note button')].filter((button) => {
             const { top, bottom, left, right } = button.getBoundingClientRect();
             const log = document.querySelector('#log').getBoundingClientRect();
             return top < log.top || bottom > log.bottom || left < 0 || right > innerWidth || bottom - top < 44; }).length";
        assert_eq!(browser.eval(&ann, hidden), 0, "{place}");
        let why = browser.eval(&ann, "document.querySelector('[data-status=refused] .note').textContent");
        assert!(why.as_str().is_some_and(|why| why.contains("longer than this server takes")), "{why}");
        for page in [&ann, &bob] {
            assert_none(&mut browser, page, FAINT, &place);
        }
        // A message in transit is as legible.
        browser.set_offline(&ann, true);
        send(&mut browser, &ann, TEXT);
        browser.wait(&ann, "document.querySelector('[data-status=sending]')");
        browser.wait(
            &ann,
            "document.getAnimations().every((one) => one.playState === 'finished' || one.animationName === 'pulse')",
        );
        assert_none(&mut browser, &ann, FAINT, &place);
    }
}

pub(crate) fn the_sign_in_form_fits_a_phone_and_describes_allowed_names() {
    let mut browser = Chromium::start();
    let server = Process::start(&crate::guarded::settings(), &["--loops", "1"]);
    for (width, colours) in [(320, "light"), (320, "dark"), (390, "light"), (390, "dark")] {
        let page = browser.open(&format!("http://{}/", server.front));
        browser.set_screen(&page, width, colours);
        browser.wait(&page, "!document.querySelector('#token-part').hidden");
        assert_none(&mut browser, &page, FAINT, colours);
        assert_none(&mut browser, &page, MISFITS, colours);
        shoot(&mut browser, &page, &format!("door-{width}-{colours}"));
        let hint = browser.eval(&page, "document.querySelector('#name-hint').textContent");
        assert!(hint.as_str().is_some_and(|hint| hint.contains("40 characters")), "{hint}");
        browser.eval(
            &page,
            &format!("(() => {{ document.querySelector('#name').value = '{NAME}W'; document.querySelector('#enter').click(); }})()"),
        );
        browser.wait(&page, "/41 characters/.test(document.querySelector('#problem').textContent)");
        assert_eq!(browser.eval(&page, "document.querySelector('#room').hidden"), true);
    }
}

pub(crate) fn a_too_long_message_is_reported_before_it_is_sent() {
    let mut browser = Chromium::start();
    let server = Process::start("", &["--loops", "1"]);
    let page = browser.open(&chat(server.front, "ann", "sse"));
    browser.set_screen(&page, 320, "light");
    browser.wait(&page, "document.querySelector('#state').dataset.state === 'open'");
    let limit = |browser: &mut Chromium| browser.eval(&page, "document.querySelector('#limit').textContent");
    for (length, expected) in [
        (10, ""),
        (9_500, "9,500 of 10,000 characters"),
        (10_001, "Too long by 1 character: a message has 10,000 at most."),
        (12_000, "Too long by 2,000 characters: a message has 10,000 at most."),
    ] {
        let text = "x".repeat(length);
        browser.eval(
            &page,
            &format!("(() => {{ const box = document.querySelector('#text'); box.value = '{text}'; box.dispatchEvent(new Event('input')); }})()"),
        );
        assert_eq!(limit(&mut browser), expected);
        assert_none(&mut browser, &page, MISFITS, expected);
        assert_none(&mut browser, &page, FAINT, expected);
    }
    shoot(&mut browser, &page, "too-long");
    browser.eval(&page, "document.querySelector('#send').click()");
    assert_eq!(browser.eval(&page, "document.querySelector('#text').value.length"), 12_000, "it is kept");
    assert_eq!(browser.eval(&page, "document.querySelectorAll('.message[data-kind=say]').length"), Value::from(0));
    // The longest message that is allowed, of characters that take most bytes on the wire, is
    // accepted.
    browser.eval(
        &page,
        "(() => { const box = document.querySelector('#text'); box.value = 'a' + '\\u0001'.repeat(9999);
             box.dispatchEvent(new Event('input')); document.querySelector('#send').click(); })()",
    );
    browser.wait(&page, "document.querySelector('.message[data-kind=say]:not([data-status])')");
}
