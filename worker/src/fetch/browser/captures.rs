//! What is kept of a page beside its records: images, print-outs and snapshots, each of at most 10 MiB.

use base64::{Engine, engine::general_purpose::STANDARD};
use chromiumoxide::{
    cdp::browser_protocol::{
        io::{CloseParams, ReadParams, StreamHandle},
        page::{
            CaptureScreenshotFormat, CaptureScreenshotParams, CaptureSnapshotFormat, CaptureSnapshotParams,
            GetLayoutMetricsParams, PrintToPdfParams, PrintToPdfTransferMode, Viewport,
        },
    },
    error::CdpError,
};
use selextract_task::{BrowserCapture, CaptureType, ImageFormat};

use super::{failed, world::World};
use crate::{
    browser::TOO_LARGE,
    fetch::{BrowserSnafu, Capture, CaptureTooLargeSnafu, FetchError, Page},
};

/// The most bytes of a capture.
pub const MAX_CAPTURE: usize = 10 << 20;
/// The most pixels of a page's height, and of its width, in an image: Chromium draws no larger one.
const MAX_SIDE: f64 = 16_384.0;
const JPEG_QUALITY: i64 = 80;
/// Bytes of a print-out that come in one message.
const CHUNK: i64 = 1 << 20;

/// Takes the captures of a page that was just read.
pub(super) async fn take(
    world: &mut World<'_>,
    mut page: Page,
    captures: &[&BrowserCapture],
) -> Result<Page, FetchError> {
    for capture in captures {
        let (media_type, bytes) = match capture.kind {
            CaptureType::Screenshot => screenshot(world, capture).await?,
            CaptureType::Pdf => ("application/pdf", print(world, &capture.name).await?),
            CaptureType::Html => ("text/html; charset=utf-8", page.text.clone().into_bytes()),
            CaptureType::Mhtml => ("multipart/related", snapshot(world, &capture.name).await?),
        };
        if bytes.len() > MAX_CAPTURE {
            return too_large(&capture.name);
        }
        page.captures.push(Capture {
            name: capture.name.clone(),
            kind: capture.kind,
            media_type: media_type.to_owned(),
            bytes,
        });
    }
    Ok(page)
}

fn too_large<T>(name: &str) -> Result<T, FetchError> {
    CaptureTooLargeSnafu { name }.fail()
}

/// A capture that is so large that it does not even come.
fn refused(name: &str, error: CdpError) -> FetchError {
    match error {
        CdpError::Chrome(refusal) if refusal.message == TOO_LARGE => CaptureTooLargeSnafu { name }.build(),
        error => failed(error),
    }
}

async fn screenshot(world: &World<'_>, capture: &BrowserCapture) -> Result<(&'static str, Vec<u8>), FetchError> {
    let page = &world.tab.page;
    let (media_type, format) = match capture.format {
        ImageFormat::Png => ("image/png", CaptureScreenshotFormat::Png),
        ImageFormat::Jpeg => ("image/jpeg", CaptureScreenshotFormat::Jpeg),
    };
    let mut shot = CaptureScreenshotParams::builder().format(format);
    if capture.format == ImageFormat::Jpeg {
        shot = shot.quality(JPEG_QUALITY);
    }
    if capture.full_page {
        let metrics = page.execute(GetLayoutMetricsParams::default()).await.map_err(failed)?;
        let size = &metrics.result.css_content_size;
        let drawn = |length: f64| length.clamp(1.0, MAX_SIDE);
        let whole = Viewport {
            x: 0.0,
            y: 0.0,
            width: drawn(size.width),
            height: drawn(size.height),
            scale: 1.0,
        };
        shot = shot.clip(whole).capture_beyond_viewport(true);
    }
    let shot = page.execute(shot.build()).await;
    let shot = shot.map_err(|error| refused(&capture.name, error))?;
    let text: &str = shot.result.data.as_ref();
    if text.len() / 4 * 3 > MAX_CAPTURE + 3 {
        return too_large(&capture.name);
    }
    Ok((media_type, decoded(text)?))
}

async fn print(world: &World<'_>, name: &str) -> Result<Vec<u8>, FetchError> {
    let mut print = PrintToPdfParams::builder().print_background(true).build();
    print.transfer_mode = Some(PrintToPdfTransferMode::ReturnAsStream);
    let printed = world.tab.page.execute(print).await.map_err(failed)?;
    let Some(stream) = printed.result.stream.clone() else {
        return decoded(printed.result.data.as_ref());
    };
    let bytes = read_stream(world, &stream, name).await;
    let _ = world.tab.page.execute(CloseParams::new(stream)).await;
    bytes
}

async fn read_stream(world: &World<'_>, stream: &StreamHandle, name: &str) -> Result<Vec<u8>, FetchError> {
    let mut bytes = Vec::new();
    loop {
        let mut read = ReadParams::new(stream.clone());
        read.size = Some(CHUNK);
        let part = world.tab.page.execute(read).await.map_err(failed)?;
        if part.result.base64_encoded == Some(true) {
            bytes.extend(decoded(&part.result.data)?);
        } else {
            bytes.extend_from_slice(part.result.data.as_bytes());
        }
        if bytes.len() > MAX_CAPTURE {
            return too_large(name);
        }
        if part.result.eof {
            return Ok(bytes);
        }
    }
}

async fn snapshot(world: &World<'_>, name: &str) -> Result<Vec<u8>, FetchError> {
    let snapshot = CaptureSnapshotParams::builder()
        .format(CaptureSnapshotFormat::Mhtml)
        .build();
    let taken = world.tab.page.execute(snapshot).await;
    let taken = taken.map_err(|error| refused(name, error))?;
    Ok(taken.result.data.clone().into_bytes())
}

fn decoded(text: &str) -> Result<Vec<u8>, FetchError> {
    STANDARD.decode(text).map_err(|_| {
        BrowserSnafu {
            message: "what it captured cannot be decoded",
        }
        .build()
    })
}
