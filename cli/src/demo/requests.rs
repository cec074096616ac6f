//! Requests to a node, each over a connection of its own, counted by who answered.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Time for one answer.
const DEADLINE: Duration = Duration::from_secs(5);

/// Who answered how often.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// By host name.
    pub(super) answers: BTreeMap<String, u32>,
    /// What went wrong instead, by text.
    pub(super) errors: BTreeMap<String, u32>,
}

impl Counts {
    /// For people.
    pub(super) fn table(&self) -> String {
        let mut text = String::new();
        for (hostname, count) in &self.answers {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "    {hostname}   {count}");
        }
        for (error, count) in &self.errors {
            let _ = writeln!(text, "    failed {count} times: {error}");
        }
        let _ = writeln!(text, "    {} host names answered", self.answers.len());
        text
    }
}

/// Sends requests one after the other.
pub(super) async fn count(address: SocketAddr, requests: u32) -> Counts {
    let mut counts = Counts::default();
    for _ in 0..requests {
        let answer = tokio::time::timeout(DEADLINE, ask(address)).await;
        match answer
            .context("no answer in time")
            .and_then(|answer| answer)
        {
            Ok(hostname) => *counts.answers.entry(hostname).or_default() += 1,
            Err(error) => *counts.errors.entry(format!("{error:#}")).or_default() += 1,
        }
    }
    counts
}

/// The first line that the service answers with: its host name.
async fn ask(address: SocketAddr) -> Result<String> {
    let mut stream = TcpStream::connect(address)
        .await
        .context("cannot connect")?;
    stream
        .write_all(b"GET / HTTP/1.0\r\n\r\n")
        .await
        .context("cannot send")?;
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .await
        .context("the connection broke")?;
    let Some((head, body)) = answer.split_once("\r\n\r\n") else {
        bail!("the answer is cut off");
    };
    if head.split(' ').nth(1) != Some("200") {
        bail!(
            "the answer is {:?}",
            head.lines().next().unwrap_or_default()
        );
    }
    Ok(body.lines().next().unwrap_or_default().to_owned())
}
