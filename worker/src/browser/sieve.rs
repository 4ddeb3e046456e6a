//! What Chromium says to its DevTools client, without what is too large: pages decide how much that is (a `data:` URL has no end), and the
//! client takes any message into memory before it looks at it.
//!
//! A listener of ours on loopback, for one connection. It knows how messages are framed (RFC 6455), and of a message no more than whether it
//! answers a command, or tells of a request that is held: what nobody hears of would be held for good, so that is told without its body.

use std::{io, net::Ipv4Addr};

use tokio::{
    io::{AsyncBufRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, BufWriter, copy, copy_buf, sink},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use url::Url;

/// The most bytes of an event. Those that are waited for are small.
const EVENT: u64 = 256 << 10;
/// The most bytes of an answer: a page of [`crate::fetch::MAX_BYTES`] with every character escaped.
const ANSWER: u64 = 64 << 20;
/// A whole message of text.
const TEXT: u8 = 0x81;
/// What is said in place of an answer that is larger.
pub(crate) const TOO_LARGE: &str = "the answer is too large";
/// How much of a large message is looked at: of a request that is held, what comes before its body and what comes after it.
const START: usize = 32 << 10;
const END: usize = 1 << 10;
/// How a message begins that tells of a request that is held; its id follows.
const HELD: &[u8] = br#"{"method":"Fetch.requestPaused","params":{"requestId":""#;
/// The address that is told in place of one that is too long to be told.
pub(crate) const TOO_LONG: &str = "about:too-long";

/// It ends, with its connection, when it is dropped.
#[derive(Debug)]
pub(super) struct Sieve {
    /// Where the client connects to.
    pub(super) devtools: String,
    carrying: JoinHandle<()>,
}

impl Sieve {
    /// Starts one before the DevTools at this URL.
    pub(super) async fn before(devtools: &str) -> io::Result<Self> {
        let mut url = Url::parse(devtools).map_err(io::Error::other)?;
        let address = format!(
            "{}:{}",
            url.host_str().unwrap_or_default(),
            url.port().unwrap_or_default()
        );
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let set = url.set_host(Some("127.0.0.1")).is_ok() && url.set_port(Some(port)).is_ok();
        debug_assert!(set, "a ws URL takes both");
        Ok(Self {
            devtools: url.into(),
            carrying: tokio::spawn(async move {
                // Either side's end is noticed by the client.
                let _ = carry(&listener, &address).await;
            }),
        })
    }
}

impl Drop for Sieve {
    fn drop(&mut self) {
        self.carrying.abort();
    }
}

async fn carry(listener: &TcpListener, address: &str) -> io::Result<()> {
    let (client, _) = listener.accept().await?;
    let chromium = TcpStream::connect(address).await?;
    client.set_nodelay(true)?;
    chromium.set_nodelay(true)?;
    let (mut asks, told) = client.into_split();
    let (says, mut asked) = chromium.into_split();
    let sifted = sift(BufReader::with_capacity(64 << 10, says), BufWriter::new(told));
    tokio::select! {
        done = copy(&mut asks, &mut asked) => done.map(drop),
        done = sifted => done,
    }
}

/// Passes messages on until one side ends.
async fn sift(
    mut from: BufReader<impl AsyncReadExt + Unpin>,
    mut to: BufWriter<impl AsyncWrite + Unpin>,
) -> io::Result<()> {
    pass_handshake(&mut from, &mut to).await?;
    loop {
        if from.buffer().is_empty() {
            to.flush().await?;
        }
        let kind = from.read_u8().await?;
        let size = from.read_u8().await?;
        let length = match size {
            126 => u64::from(from.read_u16().await?),
            127 => from.read_u64().await?,
            // What a server says is not masked.
            size => u64::from(size),
        };
        if kind != TEXT || length <= EVENT {
            write_head(&mut to, kind, length).await?;
            pass(&mut from, length, &mut to).await?;
            continue;
        }
        let (mut start, mut end) = (vec![0; START], [0; END]);
        from.read_exact(&mut start).await?;
        let rest = length - START as u64;
        let answered = answered(&start);
        if answered.is_some() && length <= ANSWER {
            write_head(&mut to, kind, length).await?;
            to.write_all(&start).await?;
            pass(&mut from, rest, &mut to).await?;
            continue;
        }
        pass(&mut from, rest - END as u64, &mut sink()).await?;
        from.read_exact(&mut end).await?;
        let instead = match answered {
            Some(id) => {
                Some(format!(r#"{{"id":{id},"error":{{"code":-32000,"message":"{TOO_LARGE}"}}}}"#).into_bytes())
            }
            None => without_body(&start, &end),
        };
        if let Some(instead) = instead {
            write_head(&mut to, TEXT, instead.len() as u64).await?;
            to.write_all(&instead).await?;
        }
    }
}

/// Both sides' agreement on what follows.
async fn pass_handshake(from: &mut (impl AsyncReadExt + Unpin), to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    let mut last = [0; 4];
    while last != *b"\r\n\r\n" {
        let byte = from.read_u8().await?;
        to.write_u8(byte).await?;
        last.rotate_left(1);
        last[3] = byte;
    }
    Ok(())
}

async fn write_head(to: &mut (impl AsyncWrite + Unpin), kind: u8, length: u64) -> io::Result<()> {
    to.write_u8(kind).await?;
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(length @ ..126), _) => to.write_u8(length).await,
        (_, Ok(length)) => {
            to.write_u8(126).await?;
            to.write_u16(length).await
        }
        _ => {
            to.write_u8(127).await?;
            to.write_u64(length).await
        }
    }
}

async fn pass(
    from: &mut (impl AsyncBufRead + Unpin),
    bytes: u64,
    to: &mut (impl AsyncWrite + Unpin),
) -> io::Result<()> {
    if copy_buf(&mut from.take(bytes), to).await? == bytes {
        Ok(())
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

/// The command that a message answers, if it is no event.
fn answered(start: &[u8]) -> Option<u64> {
    let rest = start.strip_prefix(br#"{"id":"#)?;
    let ends = rest.iter().position(|byte| *byte == b',')?;
    str::from_utf8(&rest[..ends]).ok()?.parse().ok()
}

/// A request that is held, from its message's start and end: its body is left out, and its address where that is what is so large. No text of
/// a page's looks like these names: a quotation mark in a text is escaped.
fn without_body(start: &[u8], end: &[u8]) -> Option<Vec<u8>> {
    let id_ends = HELD.len() + start.strip_prefix(HELD)?.iter().position(|byte| *byte == b'"')?;
    let follows = last(end, br#""initialPriority":"#)?;
    let body = first(start, br#""postData":"#).or_else(|| first(start, br#""hasPostData":"#));
    let mut held = if let Some(body) = body {
        start[..body].to_vec()
    } else {
        let request = format!(r#","request":{{"url":"{TOO_LONG}","method":"GET","headers":{{}},"#);
        [&start[..=id_ends], request.as_bytes()].concat()
    };
    held.extend(&end[follows..]);
    Some(held)
}

fn first(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

fn last(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).rposition(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> Vec<u8> {
        let mut framed = vec![TEXT, 127];
        framed.extend((text.len() as u64).to_be_bytes());
        framed.extend(text.as_bytes());
        framed
    }

    async fn sifted(messages: &[&str]) -> Vec<u8> {
        let mut said = b"HTTP/1.1 101 x\r\n\r\n".to_vec();
        said.extend(messages.iter().flat_map(|text| message(text)));
        let mut heard = Vec::new();
        let end = sift(BufReader::new(said.as_slice()), BufWriter::new(&mut heard)).await;
        assert_eq!(end.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        heard.split_off(b"HTTP/1.1 101 x\r\n\r\n".len())
    }

    #[tokio::test]
    async fn an_event_that_is_too_large_is_left_out_and_a_large_answer_is_not() {
        let large = "x".repeat(300 << 10);
        let event = format!(r#"{{"method":"Network.requestWillBeSent","params":{{"url":"{large}"}}}}"#);
        let answer = format!(r#"{{"id":42,"result":{{"value":"{large}"}}}}"#);
        let heard = sifted(&["{}", &event, &answer, "{}"]).await;
        assert_eq!(heard[..4], [TEXT, 2, b'{', b'}']);
        assert_eq!(heard[4..heard.len() - 4], message(&answer));
        assert_eq!(heard[heard.len() - 4..], [TEXT, 2, b'{', b'}']);
    }

    #[tokio::test]
    async fn an_answer_that_is_too_large_is_answered_as_a_failure() {
        let answer = format!(r#"{{"id":42,"result":{{"data":"{}"}}}}"#, "x".repeat(65 << 20));
        let heard = sifted(&[&answer, "{}"]).await;
        let refusal = r#"{"id":42,"error":{"code":-32000,"message":"the answer is too large"}}"#;
        assert_eq!(heard[2..heard.len() - 4], *refusal.as_bytes());
    }

    fn held(request: &str) -> String {
        format!(
            r#"{{"method":"Fetch.requestPaused","params":{{"requestId":"interception-job-1.0","request":{{{request},"initialPriority":"VeryHigh","referrerPolicy":"origin"}},"frameId":"F","resourceType":"Document"}},"sessionId":"S"}}"#
        )
    }

    #[tokio::test]
    async fn a_request_that_is_held_is_told_without_what_is_too_large_of_it() {
        let large = r#"\"initialPriority\":ü"#.repeat(20 << 10);
        let address = r#""url":"http://a/?\"postData\":","method":"POST","headers":{"Accept":"*"}"#;
        let body =
            format!(r#"{address},"postData":"{large}","hasPostData":true,"postDataEntries":[{{"bytes":"{large}"}}]"#);
        let heard = sifted(&[&held(&body), "{}"]).await;
        let told = held(address);
        assert_eq!(heard[heard.len() - 4 - told.len()..heard.len() - 4], *told.as_bytes());
        let body = format!(r#""url":"http://a/?{large}","method":"GET","headers":{{"Accept":"*"}}"#);
        let heard = sifted(&[&held(&body), "{}"]).await;
        let told = held(r#""url":"about:too-long","method":"GET","headers":{}"#);
        assert_eq!(heard[heard.len() - 4 - told.len()..heard.len() - 4], *told.as_bytes());
    }

    #[test]
    fn lengths_are_written_as_they_are_read() {
        let head = |length| {
            let mut head = Vec::new();
            futures::executor::block_on(write_head(&mut head, TEXT, length)).unwrap();
            head
        };
        assert_eq!(head(125), [TEXT, 125]);
        assert_eq!(head(126), [TEXT, 126, 0, 126]);
        assert_eq!(head(65_536), [TEXT, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
    }
}
