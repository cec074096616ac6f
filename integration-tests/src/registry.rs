//! A registry of images for tests: what an engine asks of one when it pulls, over plain HTTP, with
//! manifests in memory and all the ways in which a real one disappoints.
//!
//! What is served follows the distribution API (`/v2/NAME/manifests/REFERENCE` and
//! `/v2/NAME/blobs/DIGEST`). Repositories below `slow/` never answer.

use std::{
    collections::BTreeMap,
    future::pending,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::Instant,
};

use anyhow::{Context, Result};
use axum::{
    Router,
    body::{Body, Bytes},
    extract::{ConnectInfo, Request, State},
    http::{HeaderMap, Method, StatusCode, header},
    response::Response,
};
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::{Image, Namespace};

/// Media types of Docker's second schema, which every engine speaks.
const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const CONFIGURATION: &str = "application/vnd.docker.container.image.v1+json";
const LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
const BLOB: &str = "application/octet-stream";

/// What is below this never gets an answer.
const SLOW: &str = "slow/";

/// A registry that serves until it is dropped.
pub struct Registry {
    address: SocketAddr,
    shelves: Arc<Mutex<Shelves>>,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<io::Result<io::Result<()>>>>,
}

/// What is in the registry, and who has asked for it.
#[derive(Default)]
struct Shelves {
    /// Media type and bytes, by digest.
    content: BTreeMap<String, (&'static str, Bytes)>,
    /// Digests, by `NAME:TAG`.
    tags: BTreeMap<String, String>,
    /// Without these, as `USER:PASSWORD` in base64, nothing is told.
    credentials: Option<String>,
    asked: Vec<Asked>,
}

/// That somebody has asked for a manifest.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Which host.
    pub from: IpAddr,
    /// `NAME:TAG` or `NAME@DIGEST`.
    pub image: String,
    /// Whether for its digest only, as an engine does once for each pull of a tag, before anything
    /// else.
    pub begins: bool,
    /// When.
    pub at: Instant,
}

impl Registry {
    /// Starts on a port inside `namespace`, which others reach at `address`.
    ///
    /// # Errors
    ///
    /// When no thread can be started.
    pub fn start(namespace: &Namespace, address: Ipv4Addr, port: u16) -> Result<Self> {
        let shelves = Arc::<Mutex<Shelves>>::default();
        let (end, ended) = oneshot::channel();
        let served = Arc::clone(&shelves);
        let thread = namespace
            .thread(move || serve(port, served, ended))
            .context("cannot start the registry's thread")?;
        Ok(Self {
            address: (address, port).into(),
            shelves,
            end: Some(end),
            thread: Some(thread),
        })
    }

    /// What `name`, with its tag, is called by engines.
    #[must_use]
    pub fn reference(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }

    /// From now on whoever asks has to say who he is: `user:password` in base64.
    pub fn require(&self, credentials: &str) {
        lock(&self.shelves).credentials = Some(credentials.to_owned());
    }

    /// Pushes an image as `name`, a tag included, for this machine; its digest. Another `version`
    /// makes another image of it.
    ///
    /// # Errors
    ///
    /// When the image cannot be packed.
    pub fn push(&self, name: &str, image: &Image, version: u32) -> Result<String> {
        let layer = image.archive()?;
        let diff = digest_of(&layer);
        let configuration = json!({
            "architecture": go_architecture(),
            "os": "linux",
            "config": {
                "Entrypoint": image.entrypoint(),
                "Env": [format!("VERSION={version}")],
                "ExposedPorts": {"80/tcp": {}},
                // Without an init of its own it hears no other.
                "StopSignal": "SIGKILL",
            },
            "rootfs": {"type": "layers", "diff_ids": [diff]},
            "history": [{"created_by": "a test"}],
        });
        let mut shelves = lock(&self.shelves);
        let layer = shelves.put(BLOB, LAYER, layer);
        let configuration = shelves.put(BLOB, CONFIGURATION, text(&configuration));
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": configuration,
            "layers": [layer],
        });
        let manifest = shelves.put(MANIFEST, MANIFEST, text(&manifest));
        Ok(shelves.tag(name, &manifest))
    }

    /// Pushes a list of images as `name` that has one for this platform only, and nothing of it
    /// that could be run.
    pub fn push_foreign(&self, name: &str, os: &str, architecture: &str) -> String {
        let mut shelves = lock(&self.shelves);
        let empty = json!({"schemaVersion": 2, "mediaType": MANIFEST});
        let mut manifest = shelves.put(MANIFEST, MANIFEST, text(&empty));
        manifest["platform"] = json!({"os": os, "architecture": architecture});
        let list = json!({"schemaVersion": 2, "mediaType": LIST, "manifests": [manifest]});
        let list = shelves.put(LIST, LIST, text(&list));
        shelves.tag(name, &list)
    }

    /// All questions so far for images that begin so, in order.
    #[must_use]
    pub fn asked(&self, beginning: &str) -> Vec<Asked> {
        let asked = lock(&self.shelves).asked.clone();
        let of_it = |one: &Asked| one.image.starts_with(beginning);
        asked.into_iter().filter(of_it).collect()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // Nobody listens where the server has ended by itself, which is told below.
        let _ = self.end.take().map(|end| end.send(()));
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(Ok(Ok(())))) | None => {}
            Some(failure) => eprintln!("registry: {failure:?}"),
        }
    }
}

impl Shelves {
    /// Keeps bytes; how a manifest describes them.
    fn put(&mut self, served_as: &'static str, media_type: &str, bytes: Vec<u8>) -> Value {
        let digest = digest_of(&bytes);
        let size = bytes.len();
        self.content
            .insert(digest.clone(), (served_as, bytes.into()));
        json!({"mediaType": media_type, "size": size, "digest": digest})
    }

    /// Moves a tag to what is described so; its digest.
    fn tag(&mut self, name: &str, descriptor: &Value) -> String {
        let digest = descriptor["digest"].as_str().unwrap_or_default().to_owned();
        self.tags.insert(name.to_owned(), digest.clone());
        digest
    }

    fn answer(&mut self, method: &Method, path: &str, headers: &HeaderMap, from: IpAddr) -> Answer {
        if let Some(wanted) = &self.credentials {
            let given = headers.get(header::AUTHORIZATION);
            if given.is_none_or(|given| given != &format!("Basic {wanted}")) {
                return Answer::Denied;
            }
        }
        let path = path.trim_start_matches("/v2/");
        if let Some((name, reference)) = path.split_once("/manifests/") {
            let is_digest = reference.starts_with("sha256:");
            let sign = if is_digest { '@' } else { ':' };
            let image = format!("{name}{sign}{reference}");
            let digest = match is_digest {
                true => Some(reference.to_owned()),
                false => self.tags.get(&image).cloned(),
            };
            self.asked.push(Asked {
                from,
                image,
                begins: method == Method::HEAD,
                at: Instant::now(),
            });
            if name.starts_with(SLOW) {
                return Answer::Never;
            }
            return self.found(digest);
        }
        match path.split_once("/blobs/") {
            Some((_, digest)) => self.found(Some(digest.to_owned())),
            None if path.is_empty() => Answer::Hello,
            None => Answer::Missing,
        }
    }

    fn found(&self, digest: Option<String>) -> Answer {
        let found = digest.and_then(|digest| {
            let (media_type, bytes) = self.content.get(&digest)?.clone();
            Some(Answer::Found(media_type, digest, bytes))
        });
        found.unwrap_or(Answer::Missing)
    }
}

/// What becomes of a request.
enum Answer {
    /// It is a registry.
    Hello,
    /// Media type, digest and bytes.
    Found(&'static str, String, Bytes),
    Missing,
    Denied,
    Never,
}

fn serve(port: u16, shelves: Arc<Mutex<Shelves>>, ended: oneshot::Receiver<()>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await?;
        let routes = Router::new().fallback(answer).with_state(shelves);
        let served = axum::serve(
            listener,
            routes.into_make_service_with_connect_info::<SocketAddr>(),
        );
        tokio::select! {
            served = served => served,
            // Dropped, or told to; connections that wait for an answer get none.
            _ = ended => Ok(()),
        }
    })
}

async fn answer(
    State(shelves): State<Arc<Mutex<Shelves>>>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    request: Request,
) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let answer = lock(&shelves).answer(&method, &path, request.headers(), client.ip());
    let failed = |status, code: &str| {
        let body = json!({"errors": [{"code": code, "message": code.to_lowercase()}]});
        (
            status,
            "application/json",
            None,
            Bytes::from(body.to_string()),
        )
    };
    let (status, media_type, digest, bytes) = match answer {
        Answer::Hello => (StatusCode::OK, "application/json", None, "{}".into()),
        Answer::Found(media_type, digest, bytes) => {
            (StatusCode::OK, media_type, Some(digest), bytes)
        }
        Answer::Missing => failed(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN"),
        Answer::Denied => failed(StatusCode::UNAUTHORIZED, "UNAUTHORIZED"),
        Answer::Never => pending().await,
    };
    let mut response = Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, media_type)
        .header(header::CONTENT_LENGTH, bytes.len())
        .header("Docker-Distribution-Api-Version", "registry/2.0");
    if let Some(digest) = digest {
        response = response.header("Docker-Content-Digest", digest);
    }
    if status == StatusCode::UNAUTHORIZED {
        response = response.header(header::WWW_AUTHENTICATE, "Basic realm=\"tests\"");
    }
    let body = match method {
        Method::HEAD => Body::empty(),
        _ => bytes.into(),
    };
    // Nothing in it comes from the request.
    response.body(body).unwrap_or_default()
}

fn text(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

fn digest_of(bytes: &[u8]) -> String {
    let hash = digest(&SHA256, bytes);
    let digits = hash.as_ref().iter().map(|byte| format!("{byte:02x}"));
    format!("sha256:{}", digits.collect::<String>())
}

/// This machine's architecture, as images name it.
fn go_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// A test that panics with the lock held leaves nothing half done.
fn lock(shelves: &Mutex<Shelves>) -> MutexGuard<'_, Shelves> {
    shelves.lock().unwrap_or_else(PoisonError::into_inner)
}
