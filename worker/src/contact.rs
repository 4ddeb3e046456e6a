//! How we name ourselves to sites, and whom their owners may write to.

use std::{fmt, str::FromStr};

use snafu::{Snafu, ensure};

const HOME: &str = env!("CARGO_PKG_REPOSITORY");
const NAME: &str = concat!("Selextract/", env!("CARGO_PKG_VERSION"));
const MAX: usize = 200;

/// An address that goes into every request's `User-Agent`: a web page or a mail address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contact(String);

/// Why a text is no contact.
#[derive(Debug, Snafu, PartialEq, Eq)]
#[snafu(display(
    "{text:?} cannot stand in a User-Agent: write a web page or a mail address of at most {MAX} ASCII characters without spaces, parentheses and semicolons"
))]
pub struct ContactError {
    text: String,
}

impl Contact {
    /// What HTTP requests carry.
    pub fn user_agent(&self) -> String {
        format!("Mozilla/5.0 (compatible; {NAME}; +{})", self.0)
    }

    /// What the browser calls itself, with our name behind: sites choose their markup by its own.
    pub fn behind(&self, browsers_own: &str) -> String {
        format!("{browsers_own} {NAME} (+{})", self.0)
    }
}

impl Default for Contact {
    /// The project's home.
    fn default() -> Self {
        Self(HOME.to_owned())
    }
}

impl fmt::Display for Contact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Contact {
    type Err = ContactError;

    fn from_str(text: &str) -> Result<Self, ContactError> {
        let fits = (1..=MAX).contains(&text.len())
            && text
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && !b"();\\\"".contains(&byte));
        ensure!(fits, ContactSnafu { text });
        Ok(Self(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_agent_names_the_platform_and_its_contact() {
        let agent = "crawler@example.com".parse::<Contact>().unwrap().user_agent();
        assert!(
            agent.contains("Selextract/") && agent.ends_with("; +crawler@example.com)"),
            "{agent}"
        );
        let browser = Contact::default().behind("Mozilla/5.0 HeadlessChrome/156");
        assert!(
            browser.starts_with("Mozilla/5.0 HeadlessChrome/156 Selextract/"),
            "{browser}"
        );
    }

    #[test]
    fn a_contact_that_would_break_the_header_is_refused() {
        for text in ["", "a b", "x)\r\nHost: evil", "a;b", "(x)", "é", &"x".repeat(201)] {
            assert!(text.parse::<Contact>().is_err(), "{text:?}");
        }
    }
}
