//! Fetching a sitemap: bytes of whatever media type servers give them, up to what a sitemap may have.

use reqwest::header;

use super::{
    EGRESS_HEADER, FetchError, Request, check_egress, check_status,
    http::{Http, Trip, connection},
    retry_after,
};
use crate::sitemap::MAX_BYTES;

impl Http {
    /// Goes on with a trip to a sitemap, as [`Http::go_on`] does to a page. What is too large is cut off.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub async fn go_on_to_sitemap(&self, trip: &mut Trip, request: Request<'_>) -> Result<Option<Vec<u8>>, FetchError> {
        let Some(mut response) = self.arrive(trip, request).await? else {
            return Ok(None);
        };
        let text = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        check_egress(text(EGRESS_HEADER))?;
        check_status(
            response.status().as_u16(),
            retry_after(text(header::RETRY_AFTER.as_str())),
        )?;
        let mut body = Vec::new();
        while body.len() < MAX_BYTES
            && let Some(chunk) = response.chunk().await.map_err(|error| connection(&error))?
        {
            body.extend_from_slice(&chunk);
        }
        body.truncate(MAX_BYTES);
        Ok(Some(body))
    }
}
