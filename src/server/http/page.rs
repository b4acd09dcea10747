//! The live page: the files of `web/`, built in.
//!
//! Must not know the log: the page asks for all it shows over the same paths as everyone. Files lie
//! below a path that carries the hash of all of them, so a browser may keep them for ever, and a
//! module's relative imports stay within one version. The document itself is asked for each time.

use std::io::Write;
use std::sync::LazyLock;

use axum::Router;
use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY};
use http::header::{CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY};
use http::header::{REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderValue, StatusCode};
use xxhash_rust::xxh3::Xxh3;

use super::codings::wanted;
use crate::server::coding::Coding;

/// No source but this server, no inline script or style, in nobody's frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
    img-src 'self' data:; worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Where the document says that the files lie.
const PLACEHOLDER: &str = "{{assets}}";

const INDEX: &str = include_str!("../../../web/index.html");

macro_rules! files {
    ($($path:literal),* $(,)?) => {
        /// Path below `web/`, content.
        const FILES: &[(&str, &[u8])] = &[$(($path, include_bytes!(concat!("../../../web/", $path)))),*];
        /// The same as gzip has them, in the same order.
        const COMPRESSED: &[&[u8]] =
            &[$(include_bytes!(concat!(env!("OUT_DIR"), "/web/", $path, ".gz"))),*];
    };
}

files![
    "icon.svg",
    "js/api.js",
    "js/app.js",
    "js/ask.js",
    "js/charts.js",
    "js/chat.js",
    "js/consumers.js",
    "js/detail.js",
    "js/dom.js",
    "js/hub.js",
    "js/journal.js",
    "js/json.js",
    "js/link.js",
    "js/metrics.js",
    "js/pattern.js",
    "js/publish.js",
    "js/sampler.js",
    "js/shown.js",
    "js/sse.js",
    "js/stream.js",
    "js/tail.js",
    "js/token.js",
    "js/tree.js",
    "js/worker.js",
    "style.css",
    "vendor/uplot/LICENSE",
    "vendor/uplot/uPlot.esm.js",
    "vendor/uplot/uPlot.min.css",
];

/// The document, and the hash that its files go by.
struct Page {
    version: String,
    index: Bytes,
    /// As gzip has it.
    compressed: Option<Bytes>,
    index_hash: String,
}

static PAGE: LazyLock<Page> = LazyLock::new(|| {
    let mut all = Xxh3::new();
    for (path, content) in FILES {
        all.update(path.as_bytes());
        all.update(&content.len().to_le_bytes());
        all.update(content);
    }
    let version = format!("{:016x}", all.digest());
    let index = INDEX.replace(PLACEHOLDER, &format!("/page/{version}"));
    let mut hash = Xxh3::new();
    hash.update(index.as_bytes());
    let index_hash = format!("{:016x}", hash.digest());
    let mut writer = GzEncoder::new(Vec::new(), Compression::best());
    let written = writer.write_all(index.as_bytes());
    let compressed = written.and_then(|()| writer.finish()).ok().map(Bytes::from);
    Page { version, index: index.into(), compressed, index_hash }
});

/// The same files as zstd has them, and behind them the document. Made when the first client wants that.
#[cfg(feature = "zstd")]
static ZSTD: LazyLock<Vec<Option<Bytes>>> = LazyLock::new(|| {
    let files = FILES.iter().map(|(_, content)| *content);
    let all = files.chain(std::iter::once(&*PAGE.index));
    all.map(|content| crate::server::coding::in_zstd(content).map(Bytes::from)).collect()
});

/// `/` and what it needs.
pub(super) fn router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new().route("/", get(index)).route("/page/{version}/{*path}", get(file))
}

async fn index(headers: HeaderMap) -> Response {
    let page = &*PAGE;
    let coded = |coding| match coding {
        Coding::Gzip => page.compressed.clone(),
        #[cfg(feature = "zstd")]
        Coding::Zstd => ZSTD.last().cloned().flatten(),
    };
    answer(&headers, "index.html", page.index.clone(), coded, &page.index_hash, "no-cache")
}

async fn file(Path((version, path)): Path<(String, String)>, headers: HeaderMap) -> Response {
    let at = FILES.iter().position(|(name, _)| *name == path).filter(|_| version == PAGE.version);
    // Another version's file under this one's name would be kept for ever.
    let Some((at, (name, content))) = at.and_then(|at| Some((at, FILES.get(at)?))) else {
        return (StatusCode::NOT_FOUND, [(CACHE_CONTROL, "no-store")]).into_response();
    };
    let coded = |coding| match coding {
        Coding::Gzip => COMPRESSED.get(at).map(|bytes| Bytes::from_static(bytes)),
        #[cfg(feature = "zstd")]
        Coding::Zstd => ZSTD.get(at).cloned().flatten(),
    };
    let plain = Bytes::from_static(content);
    answer(&headers, name, plain, coded, &version, "public, max-age=31536000, immutable")
}

/// A file in the form that the client wants: as it is, or coded.
fn answer(
    asked: &HeaderMap,
    name: &str,
    plain: Bytes,
    coded: impl Fn(Coding) -> Option<Bytes>,
    hash: &str,
    kept: &'static str,
) -> Response {
    let coded = wanted(asked).and_then(|coding| Some((coding.name(), coded(coding)?)));
    let (coding, content) = coded.map_or((None, plain), |(name, content)| (Some(name), content));
    // Each representation has a tag of its own (RFC 9110, section 8.8.3.3).
    let tag = coding.map_or(format!("\"{hash}\""), |name| format!("\"{hash}-{name}\""));
    let mut response = if is_current(asked, &tag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(CONTENT_TYPE, content_type(name))], content).into_response()
    };
    let headers = response.headers_mut();
    headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    if let Some(name) = coding {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(name));
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(kept));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert("cross-origin-opener-policy", HeaderValue::from_static("same-origin"));
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(ETAG, tag);
    }
    response
}

/// Whether the client has it already, RFC 9110, section 13.1.2. Tags are compared weakly.
fn is_current(asked: &HeaderMap, tag: &str) -> bool {
    asked.get_all(IF_NONE_MATCH).iter().any(|value| {
        let list = String::from_utf8_lossy(value.as_bytes());
        list.trim() == "*" || tags(&list).any(|one| one == tag)
    })
}

/// The entity tags of a list, with their quotes. A tag may hold commas; it has no escapes.
fn tags(list: &str) -> impl Iterator<Item = &str> {
    let mut rest = list;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let begin = rest.strip_prefix("W/").unwrap_or(rest);
        let inside = begin.strip_prefix('"')?;
        let end = inside.find('"')? + 2;
        let (tag, after) = begin.split_at(end);
        rest = after;
        Some(tag)
    })
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map(|(_, extension)| extension) {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "text/plain; charset=utf-8",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use tower::ServiceExt;

    use super::*;

    fn read(dir: &std::path::Path, below: &str, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = format!("{below}{}", path.file_name().unwrap().to_str().unwrap());
            if path.is_dir() {
                read(&path, &format!("{name}/"), found);
            } else {
                found.insert(name);
            }
        }
    }

    #[test]
    fn every_file_of_the_page_is_built_in() {
        let web = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("web");
        let mut there = BTreeSet::new();
        read(&web, "", &mut there);
        // The document has its own place; the others are for whoever works on it.
        for name in ["index.html", "vendor/README.md", "vendor/update.sh", "vendor/uplot/VERSION"] {
            assert!(there.remove(name), "{name}");
        }
        let built_in: BTreeSet<String> = FILES.iter().map(|(path, _)| (*path).to_owned()).collect();
        assert_eq!(built_in, there);
    }

    #[test]
    fn the_document_has_nothing_inline_and_asks_only_for_what_is_there() {
        let index = std::str::from_utf8(&PAGE.index).unwrap();
        assert!(!index.contains("{{"), "an unfilled placeholder");
        assert!(!index.contains("style=") && !index.contains("<style"), "inline style");
        let handler = |word: &&str| word.starts_with("on") && word.contains('=');
        assert_eq!(index.split_whitespace().find(handler), None, "an inline handler");
        let base = format!("/page/{}/", PAGE.version);
        let mut asked = 0;
        for part in index.split(&base).skip(1) {
            let path = part.split('"').next().unwrap();
            assert!(FILES.iter().any(|(name, _)| *name == path), "{path}");
            asked += 1;
        }
        assert!(asked >= 4, "the document asks for {asked} files");
        for attribute in ["src=\"", "href=\""] {
            for part in index.split(attribute).skip(1) {
                assert!(part.starts_with(&base) || part.starts_with('#'), "{}", &part[..40]);
            }
        }
    }

    #[test]
    fn scripts_never_make_markup_of_text() {
        for (path, content) in FILES.iter().filter(|(path, _)| path.starts_with("js/")) {
            let text = std::str::from_utf8(content).unwrap();
            for word in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("]
            {
                assert!(!text.contains(word), "{path}: {word}");
            }
        }
    }

    #[tokio::test]
    async fn a_file_of_another_version_is_not_found_and_not_kept() {
        let wrong = Path(("0000000000000000".to_owned(), "js/app.js".to_owned()));
        let response = file(wrong, HeaderMap::new()).await;
        assert_eq!(response.status(), StatusCode::NOT_FOUND);
        assert_eq!(response.headers()[CACHE_CONTROL], "no-store");
    }

    #[tokio::test]
    async fn who_takes_gzip_gets_it_and_nobody_else() {
        use std::io::Read;
        let name = "vendor/uplot/uPlot.esm.js";
        let script = FILES.iter().find(|(path, _)| *path == name).unwrap().1;
        let ask = async |is_document: bool, asked: HeaderMap| {
            let path = Path((PAGE.version.clone(), name.to_owned()));
            if is_document { index(asked).await } else { file(path, asked).await }
        };
        for (accepts, coding) in [
            (None, None),
            (Some("gzip, deflate, br"), Some("gzip")),
            (Some("GZIP;q=0.5"), Some("gzip")),
            (Some("*"), Some("gzip")),
            (Some("br"), None),
            (Some("gzip;q=0"), None),
            (Some("*;q=0"), None),
            (Some("gzip;q=0.2, identity"), None),
            (Some("gzip;q=no"), None),
            #[cfg(feature = "zstd")]
            (Some("gzip, zstd"), Some("zstd")),
            (Some("gzip, zstd;q=0.5"), Some("gzip")),
        ] {
            for (is_document, content) in [(false, script), (true, &*PAGE.index)] {
                let mut asked = HeaderMap::new();
                if let Some(accepts) = accepts {
                    asked.insert(http::header::ACCEPT_ENCODING, HeaderValue::from_static(accepts));
                }
                let response = ask(is_document, asked.clone()).await;
                let encoding = response.headers().get(CONTENT_ENCODING);
                assert_eq!(encoding.map(|it| it.to_str().unwrap()), coding, "{accepts:?}");
                assert_eq!(response.headers()[VARY], "accept-encoding");
                // Either is known again by its own tag.
                asked.insert(IF_NONE_MATCH, response.headers()[ETAG].clone());
                let again = ask(is_document, asked).await;
                assert_eq!(again.status(), StatusCode::NOT_MODIFIED, "{accepts:?}");
                let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
                let mut plain = body.to_vec();
                if coding.is_some() {
                    assert!(body.len() * 2 < content.len(), "{} of {}", body.len(), content.len());
                    plain = Vec::new();
                }
                match coding {
                    Some("gzip") => {
                        flate2::read::GzDecoder::new(&*body).read_to_end(&mut plain).unwrap();
                    }
                    #[cfg(feature = "zstd")]
                    Some(_) => plain = zstd::decode_all(&*body).unwrap(),
                    _ => {}
                }
                assert!(plain == content, "{accepts:?}");
            }
        }
    }

    async fn get_status(path: &str) -> StatusCode {
        let request = http::Request::get(path).body(axum::body::Body::empty()).unwrap();
        router::<()>().oneshot(request).await.unwrap().status()
    }

    #[tokio::test]
    async fn every_file_is_found_at_its_path() {
        assert_eq!(get_status("/").await, StatusCode::OK);
        for (name, _) in FILES {
            let path = format!("/page/{}/{name}", PAGE.version);
            assert_eq!(get_status(&path).await, StatusCode::OK, "{path}");
        }
        for path in ["/page", "/page/../Cargo.toml", "/js/app.js"] {
            assert_eq!(get_status(path).await, StatusCode::NOT_FOUND, "{path}");
        }
    }

    #[tokio::test]
    async fn files_are_kept_for_ever_and_the_document_is_asked_for() {
        let path = Path((PAGE.version.clone(), "js/app.js".to_owned()));
        let response = file(path, HeaderMap::new()).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()[CONTENT_TYPE], "text/javascript; charset=utf-8");
        assert_eq!(response.headers()[CACHE_CONTROL], "public, max-age=31536000, immutable");
        assert_eq!(response.headers()[X_CONTENT_TYPE_OPTIONS], "nosniff");
        assert_eq!(response.headers()[CONTENT_SECURITY_POLICY], POLICY);

        let first = index(HeaderMap::new()).await;
        assert_eq!(first.headers()[CACHE_CONTROL], "no-cache");
        let mut known = HeaderMap::new();
        known.insert(IF_NONE_MATCH, first.headers()[ETAG].clone());
        assert_eq!(index(known).await.status(), StatusCode::NOT_MODIFIED);
    }
}
