//! Chromium's command line. Pure.

use std::path::Path;

use super::{BrowserSettings, Kind};

/// The guide's flags ("Playwright Optimization"), without `--no-sandbox`.
const GUIDE: [&str; 6] = [
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-timer-throttling",
    "--disable-backgrounding-occluded-windows",
    "--disable-renderer-backgrounding",
];

/// Nothing may leave but through the proxy: a page decides where Chromium connects, and the machine's network is not for pages.
const ONE_WAY_OUT: [&str; 3] = [
    // Without it loopback, link-local and their like bypass the proxy.
    "--proxy-bypass-list=<-loopback>",
    "--disable-quic",
    "--force-webrtc-ip-handling-policy=disable_non_proxied_udp",
];

/// What the browser would do for itself, and windows that pages would open. `RenderDocument` makes each page of a tab another frame with
/// another compositor, which is a quarter of what a page costs here.
const QUIET: [&str; 15] = [
    "--block-new-web-contents",
    "--disable-background-networking",
    "--disable-breakpad",
    "--disable-client-side-phishing-detection",
    "--disable-component-update",
    "--disable-crash-reporter",
    "--disable-default-apps",
    "--disable-domain-reliability",
    "--disable-extensions",
    "--disable-features=AutofillServerCommunication,CertificateTransparencyComponentUpdater,InterestFeedContentSuggestions,\
     MediaRouter,OptimizationHints,RenderDocument,Translate",
    "--disable-sync",
    "--metrics-recording-only",
    "--mute-audio",
    "--no-default-browser-check",
    "--no-pings",
];

/// What a lean browser does not load.
const LEAN: &str = "--blink-settings=imagesEnabled=false,downloadableBinaryFontsEnabled=false";

/// Every argument of a browser of this kind with its profile in this folder.
pub(super) fn command_line(kind: Kind, settings: &BrowserSettings, profile: &Path) -> Vec<String> {
    let proxy = &settings.proxy;
    let host = proxy.host_str().unwrap_or_default();
    let mut line: Vec<String> = GUIDE
        .into_iter()
        .chain(ONE_WAY_OUT)
        .chain(QUIET)
        .map(Into::into)
        .collect();
    line.extend([
        "--headless".into(),
        "--window-size=1280,1024".into(),
        "--remote-debugging-port=0".into(),
        format!("--user-data-dir={}", profile.display()),
        format!("--proxy-server={}", proxy.as_str().trim_end_matches('/')),
        // No name is resolved here but the proxy's own; the proxy of a context with a pool is a listener of the worker's on loopback.
        format!("--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE {host} , EXCLUDE 127.0.0.1"),
    ]);
    line.push(match kind {
        Kind::Lean => LEAN.into(),
        // On an image nobody scrolls.
        Kind::Full => "--hide-scrollbars".into(),
    });
    if !settings.sandbox {
        line.push("--no-sandbox".into());
    }
    line.push("about:blank".into());
    line
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn line(sandbox: bool) -> Vec<String> {
        let settings = BrowserSettings {
            program: "/usr/bin/chromium-headless-shell".into(),
            sandbox,
            proxy: "http://blue-egress:3128".parse().unwrap(),
            contact: crate::contact::Contact::default(),
            max_pages: 100,
            max_age: Duration::from_mins(30),
            max_memory: 500 << 20,
            max_idle: Duration::from_mins(5),
        };
        command_line(Kind::Lean, &settings, Path::new("/tmp/p"))
    }

    #[test]
    fn the_guides_flags_are_all_there() {
        for flag in GUIDE {
            assert!(line(true).iter().any(|argument| argument == flag), "{flag}");
        }
    }

    #[test]
    fn the_sandbox_is_given_up_only_when_it_is_off() {
        assert!(!line(true).iter().any(|argument| argument.contains("sandbox")));
        assert!(line(false).contains(&"--no-sandbox".to_owned()));
    }

    #[test]
    fn the_proxy_is_the_only_way_out_and_the_only_name() {
        let line = line(true);
        for flag in [
            "--proxy-server=http://blue-egress:3128",
            "--proxy-bypass-list=<-loopback>",
            "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE blue-egress , EXCLUDE 127.0.0.1",
            "--disable-quic",
            "--force-webrtc-ip-handling-policy=disable_non_proxied_udp",
        ] {
            assert!(line.contains(&flag.to_owned()), "{flag}");
        }
    }
}
