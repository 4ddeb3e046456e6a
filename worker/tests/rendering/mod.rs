//! Whole runs whose pages are rendered: render Auto and what it remembers, and pages that bring more of themselves.

use super::*;

/// A shell that a script fills.
const SHELL: &str = "<!doctype html><ul></ul><script>document.querySelector('ul').innerHTML = '<li>a<li>b'</script>";
/// Twelve items, two at a time.
const MORE: &str = "<!doctype html><ul><li>1.0<li>1.1</ul><button>more</button><script>
    let n = 1;
    const button = document.querySelector('button');
    button.onclick = () => fetch('/part/' + (n + 1)).then(answer => answer.text()).then(text => {
        n += 1;
        document.querySelector('ul').insertAdjacentHTML('beforeend', text);
        if (n === 6) button.remove();
    })</script>";
const SCROLL: &str = "<!doctype html><ul><li>1.0<li>1.1</ul><div style='height:3000px'></div><script>
    let n = 1, asks = false;
    addEventListener('scroll', () => {
        if (asks || n === 4 || innerHeight + scrollY < document.documentElement.scrollHeight - 10) return;
        asks = true;
        setTimeout(() => fetch('/part/' + (n + 1)).then(answer => answer.text()).then(text => {
            n += 1;
            asks = false;
            document.querySelector('ul').insertAdjacentHTML('beforeend', text);
            document.querySelector('div').style.height = 3000 * n + 'px';
        }), 200);
    })</script>";

pub fn routes() -> Router {
    Router::new()
        .route("/static", get(async || Html("<ul><li>a<li>b</ul>")))
        .route("/shell", get(async || Html(SHELL)))
        .route("/shell/{number}", get(async || Html(SHELL)))
        .route("/nothing", get(async || Html("<p>nothing here")))
        .route("/more", get(async || Html(MORE)))
        .route("/scroll", get(async || Html(SCROLL)))
        .route(
            "/part/{number}",
            get(async |Path(number): Path<u32>| {
                sleep(Duration::from_millis(100)).await;
                format!("<li>{number}.0<li>{number}.1")
            }),
        )
}

fn at(path: &str, more: Value) -> Value {
    let mut spec = json!({ "url": format!("http://site.test{path}"), "pagination": null });
    if let Value::Object(more) = more {
        spec.as_object_mut().unwrap().extend(more);
    }
    spec
}

fn auto(path: &str) -> Value {
    at(path, json!({ "render": "Auto" }))
}

/// How often a path was asked for.
fn visits(bench: &Bench, path: &str) -> usize {
    bench.asked(&format!("site.test{path}")).len()
}

async fn run(bench: &Bench, spec: Value) -> TaskDetail {
    let id = bench.accept(spec).await;
    bench
        .until(id, "the run ends", |task| {
            matches!(task.status.as_str(), "succeeded" | "failed")
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn auto_goes_to_the_browser_for_what_the_servers_html_lacks_and_remembers_the_host() {
    let bench = Bench::new().await;
    let stop = CancellationToken::new();
    let worker = bench.worker("w1", pace(), &stop);
    let task = run(&bench, auto("/static")).await;
    assert_eq!((task.status.as_str(), visits(&bench, "/static")), ("succeeded", 1));
    let task = run(&bench, auto("/shell")).await;
    assert_eq!(task.status, "succeeded", "{task:?}");
    assert_eq!(bench.texts(task.id).await, ["a", "b"]);
    assert_eq!(visits(&bench, "/shell"), 2, "by HTTP, then by the browser");
    // The host is remembered, by any worker: three pages go to the browser at once, the fourth is tried by HTTP again.
    for number in 1..=3 {
        let path = format!("/shell/{number}");
        assert_eq!(run(&bench, auto(&path)).await.status, "succeeded");
        assert_eq!(visits(&bench, &path), 1, "{path}");
    }
    run(&bench, auto("/shell/4")).await;
    assert_eq!(visits(&bench, "/shell/4"), 2);
    stop.cancel();
    assert_eq!(worker.await.unwrap(), Ended::Stopped);
}

#[tokio::test(flavor = "multi_thread")]
async fn auto_does_not_hold_a_selector_that_matches_nothing_against_the_host() {
    let bench = Bench::new().await;
    let stop = CancellationToken::new();
    let worker = bench.worker("w1", pace(), &stop);
    let task = run(&bench, auto("/nothing")).await;
    assert_eq!(task.error_class.as_deref(), Some("NoRecords"));
    run(&bench, auto("/static")).await;
    assert_eq!(visits(&bench, "/static"), 1);
    let answer = frontier_knows(&bench).await;
    assert!(!answer, "the host is remembered as scripted");
    stop.cancel();
    worker.await.unwrap();
}

async fn frontier_knows(bench: &Bench) -> bool {
    use selextract_platform::frontier::rendering::Remembered;
    bench.frontier.rendering("site.test").await.unwrap() != Remembered::Unknown
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preview_with_auto_is_rendered_when_the_servers_html_is_a_shell() {
    let bench = Bench::new().await;
    let request = Request {
        id: uuid::Uuid::now_v7(),
        owner: None,
        deadline_milliseconds: 0,
        spec: serde_json::from_value(json!({
            "url": "http://site.test/shell", "render": "Auto", "items": "li", "fields": [{ "name": "t" }],
        }))
        .unwrap(),
    };
    let answer = preview::read(&bench.engines(), &request, Duration::from_secs(10)).await;
    assert_eq!((answer.error, answer.found), (None, 2));
}

fn twos(pages: std::ops::RangeInclusive<u32>) -> Vec<String> {
    pages
        .flat_map(|page| (0..2).map(move |k| format!("{page}.{k}")))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_clicks_new_items_are_a_page_and_a_run_that_is_killed_brings_them_again_without_doubling_one() {
    let bench = Bench::new().await;
    let stop = CancellationToken::new();
    let worker = bench.worker("w1", pace(), &stop);
    let more = at(
        "/more",
        json!({ "render": "Browser", "pagination": { "loadMore": "button" } }),
    );
    let id = bench.accept(more).await;
    bench.until(id, "some pages are read", |task| task.pages >= 3).await;
    assert!(crash::kill_browsers(bench.proxy.url.as_str()) > 0);
    let task = bench.until(id, "the run ends", |task| task.status == "succeeded").await;
    assert_eq!((task.pages, bench.texts(id).await), (6, twos(1..=6)));
    assert!(visits(&bench, "/more") >= 2, "it began again");
    let two = at(
        "/more",
        json!({ "render": "Browser", "pagination": { "loadMore": "button", "maxPages": 2 } }),
    );
    let task = run(&bench, two).await;
    assert_eq!((task.pages, bench.texts(task.id).await), (2, twos(1..=2)));
    stop.cancel();
    assert_eq!(worker.await.unwrap(), Ended::Stopped);
}

#[tokio::test(flavor = "multi_thread")]
async fn scrolling_reads_on_until_nothing_new_comes() {
    let bench = Bench::new().await;
    let stop = CancellationToken::new();
    let worker = bench.worker("w1", pace(), &stop);
    let scroll = at(
        "/scroll",
        json!({ "render": "Browser", "pagination": { "scroll": true } }),
    );
    let task = run(&bench, scroll).await;
    assert_eq!(task.status, "succeeded", "{task:?}");
    assert_eq!((task.pages, bench.texts(task.id).await), (4, twos(1..=4)));
    stop.cancel();
    assert_eq!(worker.await.unwrap(), Ended::Stopped);
}

#[tokio::test(flavor = "multi_thread")]
async fn captures_are_kept_with_their_pages() {
    let bench = Bench::new().await;
    let stop = CancellationToken::new();
    let worker = bench.worker("w1", pace(), &stop);
    let captures = json!([
        { "name": "dom", "type": "Html" }, { "name": "seen", "type": "Screenshot", "format": "Jpeg" },
        { "name": "print", "type": "Pdf", "when": "LastPage" },
    ]);
    let pages = json!({
        "render": "Browser", "browser": { "captures": captures }, "pagination": { "nextSelector": "a[rel=next]", "maxPages": 2 },
    });
    let task = run(&bench, pages).await;
    assert_eq!(task.status, "succeeded", "{task:?}");
    let kept = bench.ledger.artifacts(task.id, None, 10).await.unwrap();
    let mut told: Vec<String> = kept
        .iter()
        .map(|artifact| format!("{} {} {}", artifact.page, artifact.name, artifact.media_type))
        .collect();
    told.sort_unstable();
    assert_eq!(
        told,
        [
            "1 dom text/html; charset=utf-8",
            "1 seen image/jpeg",
            "2 dom text/html; charset=utf-8",
            "2 print application/pdf",
            "2 seen image/jpeg",
        ]
    );
    assert!(
        kept.iter()
            .all(|artifact| artifact.size > 100 && artifact.left_out.is_none())
    );
    // Of a page that brings more, the last one is known when nothing more comes: what is kept then is a page without records.
    let more = at(
        "/more",
        json!({
            "render": "Browser", "pagination": { "loadMore": "button" },
            "browser": { "captures": [{ "name": "end", "type": "Html", "when": "LastPage" }] },
        }),
    );
    let task = run(&bench, more).await;
    assert_eq!((task.pages, bench.texts(task.id).await), (7, twos(1..=6)));
    let kept = bench.ledger.artifacts(task.id, None, 10).await.unwrap();
    assert_eq!((kept.len(), kept[0].page), (1, 7));
    stop.cancel();
    assert_eq!(worker.await.unwrap(), Ended::Stopped);
}
