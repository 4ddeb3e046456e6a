//! Artifacts: what a run keeps beside its records, such as screenshots, PDFs and copies of pages.
//!
//! A content is written before its page commits, in chunks into the database or as one object into the bucket, under a row of
//! `artifact_uploads` that counts against the owner's quota. The transaction that commits the page turns that row into one of
//! `artifacts`, so that an artifact is seen exactly when its page is. What a writer leaves behind who is gone, the keeper removes.
//! Artifacts go with their pages: triggers of migration 9 see to it.

mod reading;
mod removing;
mod writing;

pub use reading::Artifact;
pub use removing::Removed;
pub(super) use removing::forget;
pub(super) use writing::{Contents, Place};

/// The most bytes of one artifact.
pub const MAX_BYTES: usize = 10 << 20;
/// The most artifacts of one page.
pub const MAX_PER_PAGE: usize = 32;
/// A content is stored and read in pieces of this many bytes.
pub const CHUNK: usize = 512 << 10;

/// An artifact to be kept with a page.
#[derive(Clone, Debug)]
pub struct NewArtifact {
    /// What it is called in its run, such as `front`: 1 to 128 characters; what a file's name cannot have becomes `-`.
    pub name: String,
    /// What it is; one that [`Kind::of`] does not know is served as plain bytes.
    pub media_type: String,
    /// Its content, [`MAX_BYTES`] at most.
    pub bytes: Vec<u8>,
}

/// A kind of content that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// As it is stored and served.
    pub media_type: &'static str,
    /// How a file of it ends.
    pub extension: &'static str,
    /// Whether it is text, which becomes smaller by compression.
    compresses: bool,
}

const fn kind(media_type: &'static str, extension: &'static str, compresses: bool) -> Kind {
    Kind {
        media_type,
        extension,
        compresses,
    }
}

const KINDS: [Kind; 6] = [
    kind("image/png", "png", false),
    kind("image/jpeg", "jpg", false),
    kind("image/webp", "webp", false),
    kind("application/pdf", "pdf", false),
    kind("text/html; charset=utf-8", "html", true),
    kind("multipart/related", "mhtml", true),
];
const BYTES: Kind = kind("application/octet-stream", "bin", false);

impl Kind {
    /// The kind of a media type, whatever parameters it has. What is not on the list is plain bytes.
    pub fn of(media_type: &str) -> Self {
        let essence = |text: &str| text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let wanted = essence(media_type);
        KINDS
            .into_iter()
            .find(|kind| essence(kind.media_type) == wanted)
            .unwrap_or(BYTES)
    }
}

/// A name as it is kept: no control characters, and nothing that a path or a header would stumble over.
fn clean(name: &str) -> String {
    let clean: String = name
        .trim()
        .chars()
        .map(|c| {
            if c.is_control() || "/\\:*?\"<>|".contains(c) {
                '-'
            } else {
                c
            }
        })
        .take(128)
        .collect();
    if clean.is_empty() { "artifact".to_owned() } else { clean }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_media_type_is_one_of_the_list_or_plain_bytes() {
        assert_eq!(Kind::of("image/png").extension, "png");
        assert_eq!(Kind::of("Text/HTML").media_type, "text/html; charset=utf-8");
        assert_eq!(Kind::of("multipart/related; boundary=x").extension, "mhtml");
        for other in ["text/javascript", "image/svg+xml", "", "text/html-x"] {
            assert_eq!(Kind::of(other), BYTES, "{other}");
        }
    }

    #[test]
    fn a_name_is_one_of_a_file() {
        assert_eq!(clean("front"), "front");
        assert_eq!(clean("../etc/passwd\r\n"), "..-etc-passwd");
        assert_eq!(clean(" \n"), "artifact");
        assert_eq!(clean(&"ä".repeat(300)).chars().count(), 128);
    }
}
