//! A site to scrape: lists of 20 records in 7 KB of HTML, by a server that costs little. It belongs to no contestant.

use std::{fmt::Write as _, net::SocketAddr, sync::Arc};

use anyhow::Result;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// Records of a page.
pub const RECORDS: usize = 20;

/// A server on every address of loopback, until it is dropped.
pub struct Site {
    /// Where.
    pub port: u16,
    serving: JoinHandle<()>,
}

impl Site {
    /// Listens. Pages are `/p/1` and so on, each with a link to the next one.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind(SocketAddr::from(([0, 0, 0, 0], 0))).await?;
        let port = listener.local_addr()?.port();
        let items = Arc::new(items());
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // A connection that breaks is its client's loss.
                tokio::spawn(serve(stream, Arc::clone(&items)));
            }
        });
        Ok(Self { port, serving })
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(mut stream: TcpStream, items: Arc<String>) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut request = Vec::new();
    loop {
        request.clear();
        while !request.ends_with(b"\r\n\r\n") {
            if stream.read_buf(&mut request).await? == 0 {
                return Ok(());
            }
        }
        let head = String::from_utf8_lossy(&request);
        let path = head.split(' ').nth(1).unwrap_or_default();
        let number = path.strip_prefix("/p/").and_then(|number| number.parse::<u64>().ok());
        let answer = number.map_or_else(
            || "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_owned(),
            |number| page(number, &items),
        );
        stream.write_all(answer.as_bytes()).await?;
    }
}

fn page(number: u64, items: &str) -> String {
    let next = number + 1;
    let body = format!(
        "<!doctype html><html lang=en><head><meta charset=utf-8><title>Page {number}</title><link rel=stylesheet href=/s.css></head><body>\
         <header><a href=/>Home</a><nav><a href=/a>Things</a><a href=/b>Others</a></nav></header><h1>Page {number}</h1>\
         <ul class=results>{items}</ul><footer><a rel=next href=/p/{next}>Next</a></footer></body></html>"
    );
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\ncontent-type: text/html; charset=utf-8\r\ncontent-length: {length}\r\n\r\n{body}")
}

fn items() -> String {
    let mut text = String::new();
    for number in 1..=RECORDS {
        // Writing to a text cannot fail.
        let _ = write!(
            text,
            "<li class=\"item\" data-id=\"{number}\"><img src=\"/i/{number}.png\" alt=\"\" width=120 height=80><h2><a href=\"/thing/{number}\">Thing \
             number {number} with a <em>long</em> name</a></h2><p class=\"price\">{number}9.90 EUR</p><p class=\"text\">It is made of several \
             parts, comes in three colours, and is delivered within two days, in a \
             box of its own.</p></li>"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_seven_kilobytes_and_twenty_records() {
        let page = page(1, &items());
        assert!((6_500..8_000).contains(&page.len()), "{}", page.len());
        assert_eq!(page.matches("<li class=\"item\"").count(), RECORDS);
        assert!(page.contains("rel=next href=/p/2"));
    }
}
