//! What a task does in a page: steps, waits, captures, more of it, and what it does not load.

use axum::{response::IntoResponse, routing::post};
use selextract_task::{More, Plan, TaskSpec};
use selextract_worker::{access::Access, browser::Kind, fetch::Capture};
use serde_json::{Value, json};

use super::*;

const FORM: &str = "<!doctype html><body>
    <div id=notice style='position:fixed;inset:0;background:white'><button id=agree onclick='notice.remove()'>I agree</button></div>
    <input id=q value=old><select id=size><option value=8>Size 8<option value=9>Size 9</select><textarea id=note></textarea>
    <ul id=out></ul><div id=deep style='height:5000px'>deep</div>
    <script>
    const say = text => out.insertAdjacentHTML('beforeend', '<li>' + text + '</li>');
    agree.addEventListener('click', event => say('agreed ' + event.isTrusted));
    q.addEventListener('keydown', event => { if (event.key === 'Enter') say('asked for ' + q.value + ' ' + event.isTrusted) });
    size.addEventListener('change', () => say('size ' + size.value));
    addEventListener('scroll', () => { if (scrollY > 1000) say('scrolled') }, { once: true });
    </script>";

const WAITS: &str =
    "<!doctype html><body><p id=spinner>loading</p><p id=late style='display:none'>late</p><b>x</b><script>
    setTimeout(() => { spinner.style.display = 'none' }, 200);
    setTimeout(() => { late.style.display = 'block'; document.querySelector('b').textContent = 'all is ready' }, 400);
    setTimeout(() => fetch('/slow-json').then(r => r.text()).then(t => { document.body.append(t) }), 300);
    </script>";

const LEADS: &str = "<!doctype html><body><p>start</p><a id=plain href=/plain>plain</a><a id=window href=/window target=_blank>w</a>
    <a id=file href='file:///etc/passwd'>f</a><a id=download href=/plain download=x>d</a>
    <button id=open onclick=\"window.open('/window')\">o</button><button id=ask onclick=\"this.textContent = confirm('sure?')\">a</button>
    <button disabled id=off>off</button>";

const HIDDEN: &str = "<!doctype html><body><my-card></my-card><input id=typed><input type=checkbox id=box><input type=password id=secret>
    <script>
    window.__INITIAL_STATE__ = { price: '9 </b> EUR' };
    document.querySelector('my-card').attachShadow({ mode: 'open' }).innerHTML = '<i>in the shadow</i>';
    typed.value = 'by script'; box.checked = true; secret.value = 'hunter2';
    </script>";

/// Whatever is asked of its variables, the answer is half of a UTF-16 pair.
const HALVES: &str = "<!doctype html><body><p>here<script>
    window.__data = 1;
    JSON.stringify = () => { if (location.search) throw 'x\\ud83d'; return 'x\\ud83d' };
    String.prototype.toWellFormed = function () { return this + '' };
    </script>";

const LOOKS: &str = "<!doctype html><style>@font-face { font-family: f; src: url(/f.woff2) } p { font-family: f; height: 3000px }</style>
    <link rel=stylesheet href=/s.css><body><p>look<img src=/i.png><video src=/v.mp4 preload=auto></video><script src=/x.js></script>";

/// More comes a moment after a click on the button, four times; then it is gone.
const MORE: &str = "<!doctype html><body><ul><li>0.0<li>0.1</ul><button id=more>more</button><script>
    let n = 0;
    more.onclick = () => fetch('/slow-json').then(() => {
        n += 1;
        document.querySelector('ul').insertAdjacentHTML('beforeend', `<li>${n}.0<li>${n}.1`);
        if (n === 3) more.remove();
    })</script>";

pub fn routes() -> Router {
    let html = |text: &'static str| get(async move || Html(text));
    Router::new()
        .route("/form", html(FORM))
        .route("/waits", html(WAITS))
        .route("/leads", html(LEADS))
        .route("/hidden", html(HIDDEN))
        .route("/half-state", html(HALVES))
        .route("/looks", html(LOOKS))
        .route("/more", html(MORE))
        .route(
            "/halves",
            get(async || {
                let halves = futures::stream::unfold(0, async |part| {
                    sleep(Duration::from_millis(300 * u64::from(part == 1))).await;
                    let text = format!("<ul><li>{part}</ul>{}", " ".repeat(2000));
                    (part < 2).then_some((Ok::<_, std::convert::Infallible>(text), part + 1))
                });
                let html = [(header::CONTENT_TYPE, "text/html")];
                (html, axum::body::Body::from_stream(halves)).into_response()
            }),
        )
        .route("/window", html("<p>a window"))
        .route(
            "/posts",
            html(
                "<form method=post action=/posted><textarea name=t></textarea></form>
                <script>document.querySelector('textarea').value = 'x'.repeat(300 << 10); document.forms[0].submit()</script>",
            ),
        )
        .route(
            "/posted",
            post(async |headers: HeaderMap, body: String| {
                let mine = headers.get("x-mine").map_or("-", |mine| mine.to_str().unwrap());
                Html(format!("<p>{} bytes, {mine}", body.len()))
            }),
        )
        .route(
            "/far",
            html("<p>here<script>location = '/plain?' + 'x'.repeat(300 << 10)</script>"),
        )
        .route(
            "/dialogs",
            html("<body><script>alert(1); document.body.append('went on ' + confirm('?') + prompt('!'))</script>"),
        )
        .route(
            "/noise",
            html(
                "<body style='margin:0'><canvas id=c width=1280 height=4000></canvas><script>
                const d = c.getContext('2d'), i = d.createImageData(1280, 4000);
                for (let k = 0; k < i.data.length; k += 65536) crypto.getRandomValues(i.data.subarray(k, k + 65536));
                for (let k = 3; k < i.data.length; k += 4) i.data[k] = 255;
                d.putImageData(i, 0, 0)</script>",
            ),
        )
        .route(
            "/slow-json",
            get(async || {
                sleep(Duration::from_millis(600)).await;
                "it came"
            }),
        )
        .route(
            "/i.png",
            get(async || ([(header::CONTENT_TYPE, "image/png")], "").into_response()),
        )
        .route(
            "/f.woff2",
            get(async || ([(header::CONTENT_TYPE, "font/woff2")], "").into_response()),
        )
        .route(
            "/v.mp4",
            get(async || ([(header::CONTENT_TYPE, "video/mp4")], "").into_response()),
        )
        .route(
            "/s.css",
            get(async || ([(header::CONTENT_TYPE, "text/css")], "b{}").into_response()),
        )
        .route(
            "/x.js",
            get(async || ([(header::CONTENT_TYPE, "text/javascript")], "0").into_response()),
        )
}

fn plan(path: &str, more: &Value) -> Plan {
    let mut spec =
        json!({ "url": format!("http://site.test{path}"), "render": "Browser", "fields": [{ "name": "t" }] });
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let spec: TaskSpec = serde_json::from_value(spec).unwrap();
    spec.compile().unwrap()
}

async fn visit(bench: &Bench, path: &str, more: &Value) -> Result<Page, FetchError> {
    let plan = plan(path, more);
    let access = Arc::new(Access::of(&plan, None));
    let mut session = Session::open(&bench.browsers, Opening::of(&plan, &access))
        .await
        .unwrap();
    let errand = Errand::of(&plan, true);
    let page = session.fetch(&plan.url, &errand, Duration::from_secs(20));
    timeout(Duration::from_secs(30), page)
        .await
        .expect("the engine keeps its own time")
}

async fn steps(bench: &Bench, path: &str, steps: Value) -> Result<Page, FetchError> {
    visit(bench, path, &json!({ "browser": { "steps": steps } })).await
}

#[tokio::test]
async fn steps_are_done_as_a_person_would_do_them_and_on_what_can_be_reached() {
    let bench = Bench::new(|_| {}).await;
    let page = steps(
        &bench,
        "/form",
        json!([
            { "type": "Click", "selector": "#agree" },
            { "type": "Click", "selector": ".not-there", "optional": true, "timeout": "100ms" },
            { "type": "Type", "selector": "#q", "text": "shoes' \"<b>" },
            { "type": "Press", "key": "Enter" },
            { "type": "Select", "selector": "#size", "option": "Size 9" },
            { "type": "Scroll" },
            { "type": "Wait", "duration": "200ms" },
        ]),
    )
    .await
    .unwrap();
    for said in ["agreed true", "asked for shoes' \"<b> true", "size 9", "scrolled"] {
        assert!(page.text.contains(&format!("<li>{said}")), "{said}: {}", page.text);
    }
    bench.browsers.close().await;
}

#[tokio::test]
async fn a_step_that_cannot_be_done_fails_by_its_number_and_its_reason() {
    let bench = Bench::new(|_| {}).await;
    let fails = async |path: &str, step: Value| {
        let error = steps(&bench, path, json!([{ "type": "Scroll" }, step]))
            .await
            .unwrap_err();
        assert!(matches!(error, FetchError::Step { number: 2, .. }), "{error:?}");
        error.to_string()
    };
    let covered = fails(
        "/form",
        json!({ "type": "Click", "selector": "#q", "timeout": "300ms" }),
    )
    .await;
    assert_eq!(
        covered,
        "step 2 was not done within 300ms: \"#q\" is covered by something else"
    );
    let missing = fails(
        "/plain",
        json!({ "type": "Wait", "selector": "#no", "timeout": "300ms" }),
    )
    .await;
    assert!(missing.ends_with("\"#no\" is not there"), "{missing}");
    let disabled = fails(
        "/leads",
        json!({ "type": "Click", "selector": "#off", "timeout": "300ms" }),
    )
    .await;
    assert!(disabled.ends_with("\"#off\" is disabled"), "{disabled}");
    let option = fails(
        "/form",
        json!({ "type": "Select", "selector": "#size", "option": "10" }),
    )
    .await;
    assert!(option.ends_with("has no option \"10\""), "{option}");
    bench.browsers.close().await;
}

#[tokio::test]
async fn a_large_form_is_sent_as_it_is_and_an_endless_address_fails_at_once() {
    let bench = Bench::new(|_| {}).await;
    let posted = json!({ "waitConditions": [{ "selector": "p", "timeout": "10s" }] });
    for (headers, mine) in [(json!({}), "-"), (json!({ "X-Mine": "yes" }), "yes")] {
        let mut more = posted.clone();
        more["customHeaders"] = headers;
        let page = visit(&bench, "/posts", &more).await.unwrap();
        assert!(page.text.contains(&format!("<p>307202 bytes, {mine}")), "{}", page.text);
    }
    let started = Instant::now();
    let error = visit(&bench, "/far", &json!({ "waitConditions": [{ "selector": "#never" }] }))
        .await
        .unwrap_err();
    assert!(matches!(error, FetchError::AddressTooLong), "{error:?}");
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
    bench.browsers.close().await;
}

#[tokio::test]
async fn a_step_leads_to_a_web_page_and_nowhere_else() {
    let bench = Bench::new(|_| {}).await;
    let click = async |id: &str| {
        let page = steps(&bench, "/leads", json!([{ "type": "Click", "selector": id }]))
            .await
            .unwrap();
        page.url.path().to_owned()
    };
    assert_eq!(click("#plain").await, "/plain");
    for stays in ["#window", "#open", "#file", "#download"] {
        assert_eq!(click(stays).await, "/leads", "{stays}");
    }
    assert!(
        !bench.proxy.seen().iter().any(|url| url.ends_with("/window")),
        "a new window was opened"
    );
    let page = steps(&bench, "/leads", json!([{ "type": "Click", "selector": "#ask" }]))
        .await
        .unwrap();
    assert!(page.text.contains(">false</button>"), "{}", page.text);
    bench.browsers.close().await;
}

#[tokio::test]
async fn dialogs_are_dismissed_and_the_page_goes_on() {
    let bench = Bench::new(|_| {}).await;
    let page = bench.fetch("/dialogs", &[]).await.unwrap();
    assert!(page.text.contains("went on falsenull"), "{}", page.text);
    bench.browsers.close().await;
}

#[tokio::test]
async fn a_page_is_waited_for_by_what_is_seen_gone_written_or_at_rest() {
    let bench = Bench::new(|_| {}).await;
    for (wait, shows) in [
        (json!({ "selector": "#spinner", "state": "Gone" }), "display: none"),
        (json!({ "selector": "#late", "state": "Visible" }), "display: block"),
        (json!({ "selector": "b", "text": "is ready" }), "all is ready"),
        (json!({ "text": "all is ready" }), "all is ready"),
        (json!({ "networkIdle": true }), "it came"),
    ] {
        let page = visit(&bench, "/waits", &json!({ "waitConditions": [wait] }))
            .await
            .unwrap();
        assert!(page.text.contains(shows), "{wait}: {}", page.text);
    }
    let never = json!({ "waitConditions": [{ "selector": "#late", "state": "Gone" }, { "text": "never", "timeout": "300ms" }] });
    let error = visit(&bench, "/waits", &never).await.unwrap_err();
    assert_eq!(error.to_string(), "the text \"never\" was not seen within 300ms");
    bench.browsers.close().await;
}

#[tokio::test]
async fn a_page_whose_conditions_hold_while_it_comes_is_read_when_all_of_it_is_there() {
    let bench = Bench::new(|_| {}).await;
    let page = bench.fetch("/halves", &wait_for("li", 5000)).await.unwrap();
    assert_eq!(page.text.matches("<li>").count(), 2, "{}", page.text);
    bench.browsers.close().await;
}

#[tokio::test]
async fn the_platforms_extractors_bring_what_selectors_do_not_see() {
    let bench = Bench::new(|_| {}).await;
    let evaluate = |extractor: &str| json!({ "type": "Evaluate", "extractor": extractor });
    let all = json!([evaluate("PageState"), evaluate("ShadowRoots"), evaluate("FormValues")]);
    let page = steps(&bench, "/hidden", all).await.unwrap();
    for brought in [
        "<selextract-shadow><i>in the shadow</i></selextract-shadow>",
        "id=\"selextract-state\">{\"__INITIAL_STATE__\":{\"price\":\"9 \\u003c/b> EUR\"}}</script>",
        "value=\"by script\"",
        "id=\"box\" checked=\"\"",
    ] {
        assert!(page.text.contains(brought), "{brought}: {}", page.text);
    }
    assert!(!page.text.contains("value=\"hunter2\""));
    bench.browsers.close().await;
}

#[tokio::test]
async fn a_page_whose_state_is_no_text_is_read_without_it() {
    let bench = Bench::new(|_| {}).await;
    let started = Instant::now();
    for path in ["/half-state", "/half-state?throws"] {
        let page = steps(&bench, path, json!([{ "type": "Evaluate", "extractor": "PageState" }])).await;
        let text = page.unwrap().text;
        assert!(text.contains("<p>here") && !text.contains("selextract-state"), "{text}");
    }
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    bench.browsers.close().await;
}

fn capture<'p>(page: &'p Page, name: &str) -> &'p Capture {
    page.captures.iter().find(|capture| capture.name == name).unwrap()
}

/// Width and height, as a PNG's first chunk says.
fn size(png: &[u8]) -> (u32, u32) {
    let number = |from: usize| u32::from_be_bytes(png[from..from + 4].try_into().unwrap());
    (number(16), number(20))
}

#[tokio::test]
async fn a_page_is_captured_as_image_print_and_snapshot() {
    let bench = Bench::new(|_| {}).await;
    let captures = json!([
        { "name": "seen", "type": "Screenshot" }, { "name": "whole", "type": "Screenshot", "fullPage": true },
        { "name": "small", "type": "Screenshot", "format": "Jpeg" }, { "name": "print", "type": "Pdf" },
        { "name": "dom", "type": "Html" }, { "name": "all", "type": "Mhtml" }, { "name": "end", "type": "Html", "when": "LastPage" },
    ]);
    let page = visit(&bench, "/looks", &json!({ "browser": { "captures": captures } }))
        .await
        .unwrap();
    assert_eq!(page.captures.len(), 6, "{:?}", page.captures);
    let seen = &capture(&page, "seen").bytes;
    assert!(seen.starts_with(b"\x89PNG"));
    assert_eq!(size(seen), (1280, 1024));
    let whole = size(&capture(&page, "whole").bytes);
    assert!(whole.0 == 1280 && whole.1 > 3000, "{whole:?}");
    assert!(capture(&page, "small").bytes.starts_with(b"\xff\xd8\xff"));
    assert!(capture(&page, "print").bytes.starts_with(b"%PDF-"));
    assert_eq!(capture(&page, "dom").bytes, page.text.as_bytes());
    let snapshot = String::from_utf8_lossy(&capture(&page, "all").bytes);
    assert!(
        snapshot.contains("Snapshot-Content-Location: http://site.test/looks"),
        "{snapshot}"
    );
    bench.browsers.close().await;
}

#[tokio::test]
async fn a_capture_of_more_than_ten_mebibytes_fails_by_its_name() {
    let bench = Bench::new(|_| {}).await;
    let captures = json!([{ "name": "noise", "type": "Screenshot", "fullPage": true }]);
    let error = visit(&bench, "/noise", &json!({ "browser": { "captures": captures } }))
        .await
        .unwrap_err();
    assert!(
        matches!(&error, FetchError::CaptureTooLarge { name } if name == "noise"),
        "{error:?}"
    );
    bench.browsers.close().await;
}

#[tokio::test]
async fn a_lean_browser_leaves_images_fonts_and_media_out_and_a_full_one_what_the_task_says() {
    let bench = Bench::new(|_| {}).await;
    let mut before = 0;
    for (browser, expected) in [
        (json!({}), "s.css x.js"),
        (json!({ "block": [] }), "f.woff2 i.png s.css v.mp4 x.js"),
        (json!({ "block": ["Image", "Script"] }), "f.woff2 s.css v.mp4"),
        (json!({ "block": ["Image", "Font", "Media", "Stylesheet"] }), "x.js"),
    ] {
        visit(&bench, "/looks", &json!({ "browser": browser })).await.unwrap();
        sleep(Duration::from_millis(500)).await;
        let seen = bench.proxy.seen();
        let mut loaded: Vec<&str> = seen[before..].iter().filter_map(|url| url.rsplit('/').next()).collect();
        before = seen.len();
        loaded.retain(|name| !matches!(*name, "looks" | "favicon.ico"));
        loaded.sort_unstable();
        loaded.dedup();
        assert_eq!(loaded.join(" "), expected, "{browser}");
    }
    bench.browsers.close().await;
}

#[tokio::test]
async fn a_browser_of_each_kind_is_started_when_it_is_needed_and_ends_when_it_is_idle() {
    let bench = Bench::new(|settings| settings.max_idle = Duration::from_millis(700)).await;
    // Debian's program is a script around it, with the same arguments.
    let mains = || hygiene::groups(&bench).len();
    assert_eq!(mains(), 0);
    drop(bench.browsers.open_tab(Kind::Lean).await.unwrap());
    assert_eq!(mains(), 1);
    let tab = bench.browsers.open_tab(Kind::Full).await.unwrap();
    assert_eq!(mains(), 2);
    eventually("the idle browser is still there", || mains() == 1).await;
    sleep(Duration::from_secs(2)).await;
    assert_eq!(mains(), 1, "one with a tab is not idle");
    drop(tab);
    eventually("the other idle browser is still there", || mains() == 0).await;
    bench.browsers.close().await;
}

#[tokio::test]
async fn clicks_bring_more_until_there_is_nothing_to_click_on() {
    let bench = Bench::new(|_| {}).await;
    let plan = plan(
        "/more",
        &json!({ "items": "li", "pagination": { "loadMore": "#more" } }),
    );
    let Some(more @ More::Click(_)) = &plan.visit.more else {
        unreachable!("it is a click");
    };
    let access = Arc::new(Access::of(&plan, None));
    let mut session = Session::open(&bench.browsers, Opening::of(&plan, &access))
        .await
        .unwrap();
    let errand = Errand::of(&plan, true);
    let limit = Duration::from_secs(20);
    let mut pages = vec![session.fetch(&plan.url, &errand, limit).await.unwrap()];
    while let Some(page) = session
        .bring_more(more, &errand, limit, Anywhere)
        .await
        .unwrap()
        .unwrap()
    {
        pages.push(page);
    }
    let items: Vec<usize> = pages.iter().map(|page| page.text.matches("<li>").count()).collect();
    // The script's own text has two.
    assert_eq!(items, [4, 6, 8, 10]);
    assert!(session.is_usable());
    drop(session);
    bench.browsers.close().await;
}
