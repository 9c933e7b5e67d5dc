//! Requests that are not HTTP, or that two servers in a row could take for different requests.

use crate::routes::Route;

/// A malformed request.
pub struct Malformed {
    /// What is wrong with it.
    pub what: String,
    pub bytes: Vec<u8>,
    /// Whether the client closes its side in the middle of the request.
    pub is_cut: bool,
}

/// Lines before the headers that decide where a request ends.
struct Parts<'a> {
    route: &'a Route,
    /// Method and target.
    line: String,
    /// Media type and credentials.
    headers: String,
    body: String,
}

impl Parts<'_> {
    /// A request with this first line, after which everything is right.
    fn with_line(&self, line: &str) -> Vec<u8> {
        let Self { headers, body, .. } = self;
        let length = body.len();
        format!("{line}\r\nhost: town\r\n{headers}content-length: {length}\r\n\r\n{body}").into()
    }

    /// A request with these header lines before its length.
    fn with_headers(&self, lines: &str) -> Vec<u8> {
        let length = format!("{lines}content-length: {}\r\n", self.body.len());
        self.framed(&length, &self.body)
    }

    /// A request with these header lines, `Content-Length` and `Transfer-Encoding` among them, and this body.
    fn framed(&self, lines: &str, body: &str) -> Vec<u8> {
        let Self { line, headers, .. } = self;
        format!("{line} HTTP/1.1\r\nhost: town\r\n{headers}{lines}\r\n{body}").into()
    }

    /// A request with these header lines in place of its `Host`.
    fn hosted(&self, lines: &str) -> Vec<u8> {
        let Self { line, headers, body, .. } = self;
        let length = body.len();
        format!("{line} HTTP/1.1\r\n{lines}{headers}content-length: {length}\r\n\r\n{body}").into()
    }

    /// A chunked request with this body.
    fn chunked(&self, body: &str) -> Vec<u8> {
        self.framed("transfer-encoding: chunked\r\n", body)
    }

    /// The body as one chunk, and the last chunk.
    fn one_chunk(&self) -> String {
        format!("{:x}\r\n{}\r\n0\r\n\r\n", self.body.len(), self.body)
    }
}

/// Each malformed request to a route. Its body is the one that the route accepts.
pub fn requests(route: &Route) -> Vec<Malformed> {
    let Route { method, path, body, .. } = route;
    let parts = Parts {
        route,
        line: format!("{method} {path}"),
        headers: route.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect(),
        body: (*body).to_owned(),
    };
    let mut all = Vec::new();
    let complete = |found: Vec<(&str, Vec<u8>)>| -> Vec<Malformed> {
        let malformed = |(what, bytes): (&str, _)| (what.to_owned(), bytes);
        let found = found.into_iter().map(malformed);
        found.map(|(what, bytes)| Malformed { what, bytes, is_cut: false }).collect()
    };
    all.extend(complete(first_lines(&parts)));
    all.extend(complete(headers(&parts)));
    all.extend(complete(lengths(&parts)));
    all.extend(complete(chunks(&parts)));
    all.extend(complete(smuggled(&parts)));
    let cut = cut_off(&parts).into_iter();
    all.extend(cut.map(|(what, bytes)| Malformed { what: what.into(), bytes, is_cut: true }));
    all
}

fn first_lines(parts: &Parts) -> Vec<(&'static str, Vec<u8>)> {
    let Route { method, path, .. } = parts.route;
    let line = |line: String| parts.with_line(&line);
    vec![
        ("no version", line(format!("{method} {path}"))),
        ("no target", line(format!("{method} HTTP/1.1"))),
        ("no method", line(format!(" {path} HTTP/1.1"))),
        ("a version in lower case", line(format!("{method} {path} http/1.1"))),
        ("HTTP 2.0", line(format!("{method} {path} HTTP/2.0"))),
        ("HTTP 1.9", line(format!("{method} {path} HTTP/1.9"))),
        ("HTTP 0.9", line(format!("{method} {path} HTTP/0.9"))),
        ("a version of two digits", line(format!("{method} {path} HTTP/1.10"))),
        ("another protocol", line(format!("{method} {path} RTSP/1.0"))),
        ("more behind the version", line(format!("{method} {path} HTTP/1.1 x"))),
        ("two spaces", line(format!("{method}  {path} HTTP/1.1"))),
        ("a tab for a space", line(format!("{method}\t{path} HTTP/1.1"))),
        ("a space in the target", line(format!("{method} {path} x HTTP/1.1"))),
        ("a NUL in the target", line(format!("{method} {path}\0 HTTP/1.1"))),
        ("a control character in the target", line(format!("{method} {path}\x7f HTTP/1.1"))),
        ("a target without its slash", line(format!("{method} {} HTTP/1.1", &path[1..]))),
        ("a method with a bracket", line(format!("{method}( {path} HTTP/1.1"))),
        ("a method with a NUL", line(format!("{method}\0 {path} HTTP/1.1"))),
        ("a bare CR in the first line", line(format!("{method} {path}\rHTTP/1.1"))),
        ("a target of 100 kB", line(format!("{method} {path}?{} HTTP/1.1", "x".repeat(100_000)))),
        ("a TLS handshake", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec()),
        ("the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec()),
        ("a list of JSON", parts.body.clone().into_bytes()),
    ]
}

fn headers(parts: &Parts) -> Vec<(&'static str, Vec<u8>)> {
    let many: String = (0..200).map(|number| format!("x-{number}: y\r\n")).collect();
    vec![
        ("a NUL in a header's value", parts.with_headers("x: a\0b\r\n")),
        ("a NUL in a header's name", parts.with_headers("x\0y: a\r\n")),
        ("a control character in a header's value", parts.with_headers("x: a\x01b\r\n")),
        ("a bare CR in a header's value", parts.with_headers("x: a\rb\r\n")),
        ("a folded header", parts.with_headers("x: a\r\n b\r\n")),
        ("a header folded with a tab", parts.with_headers("x: a\r\n\tb\r\n")),
        ("a folded first header", parts.hosted(" x: a\r\nhost: town\r\n")),
        ("a space before the colon", parts.with_headers("x : a\r\n")),
        ("a header without a name", parts.with_headers(": a\r\n")),
        ("a header without a colon", parts.with_headers("x\r\n")),
        ("a space in a header's name", parts.with_headers("x y: a\r\n")),
        ("a bracket in a header's name", parts.with_headers("x(y): a\r\n")),
        ("a letter beyond ASCII in a header's name", parts.with_headers("é: a\r\n")),
        ("a header of 40 kB", parts.with_headers(&format!("x: {}\r\n", "y".repeat(40_000)))),
        ("a header's name of 70 kB", parts.with_headers(&format!("{}: y\r\n", "x".repeat(70_000)))),
        ("200 headers", parts.with_headers(&many)),
        ("no host", parts.hosted("")),
        ("two hosts", parts.hosted("host: town\r\nhost: other\r\n")),
        ("the host twice", parts.hosted("host: town\r\nhost: town\r\n")),
        ("a host with a space", parts.hosted("host: to wn\r\n")),
        ("a host with a path", parts.hosted("host: town/x\r\n")),
        ("a host with a user", parts.hosted("host: x@town\r\n")),
        ("a list of hosts", parts.hosted("host: town, other\r\n")),
    ]
}

fn lengths(parts: &Parts) -> Vec<(&'static str, Vec<u8>)> {
    let body = &parts.body;
    let length = body.len();
    let framed = |lines: String| parts.framed(&lines, body);
    let one = |value: String| framed(format!("content-length: {value}\r\n"));
    let encoded = |lines: &str| parts.framed(lines, &parts.one_chunk());
    vec![
        ("two lengths", framed(format!("content-length: {length}\r\ncontent-length: 0\r\n"))),
        ("two lengths in a list", one(format!("{length}, 0"))),
        ("a negative length", one(format!("-{length}"))),
        ("a length with a sign", one(format!("+{length}"))),
        ("a length in hexadecimal", one(format!("0x{length:x}"))),
        ("a length with a fraction", one(format!("{length}.0"))),
        ("a length with a unit", one(format!("{length}b"))),
        ("a length with a space in it", one(format!("{length} 1"))),
        ("a length above 64 bits", one("18446744073709551617".to_owned())),
        ("the greatest length", one("18446744073709551615".to_owned())),
        ("an empty length", one(String::new())),
        ("a length of other digits", one("٣٥".to_owned())),
        ("a length folded over two lines", one(format!("\r\n {length}"))),
        ("no length", parts.framed("", body)),
        ("a length that is one byte short", one((length - 1).to_string())),
        ("an unknown coding", encoded("transfer-encoding: gzip\r\n")),
        ("chunked, then another coding", encoded("transfer-encoding: chunked, gzip\r\n")),
        ("another coding, then chunked", encoded("transfer-encoding: gzip, chunked\r\n")),
        ("chunked twice", encoded("transfer-encoding: chunked, chunked\r\n")),
        (
            "chunked in two lines",
            encoded("transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n"),
        ),
        (
            "another coding in a second line",
            encoded("transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n"),
        ),
        (
            "another coding in a first line",
            encoded("transfer-encoding: identity\r\ntransfer-encoding: chunked\r\n"),
        ),
        ("identity", encoded("transfer-encoding: identity\r\n")),
        ("a coding that is called much like chunked", encoded("transfer-encoding: xchunked\r\n")),
        ("chunked in quotes", encoded("transfer-encoding: \"chunked\"\r\n")),
        ("chunked with a parameter", encoded("transfer-encoding: chunked;q=1\r\n")),
        ("chunked behind a comma", encoded("transfer-encoding: ,chunked\r\n")),
        ("a coding with a vertical tab", encoded("transfer-encoding: \x0bchunked\r\n")),
        ("a coding with a space before its colon", encoded("transfer-encoding : chunked\r\n")),
        ("an empty coding", encoded("transfer-encoding:\r\n")),
    ]
}

fn chunks(parts: &Parts) -> Vec<(&'static str, Vec<u8>)> {
    let body = &parts.body;
    let length = body.len();
    // Size and line end of the first chunk, exactly as given.
    let first = |size: String| parts.chunked(&format!("{size}{body}\r\n0\r\n\r\n"));
    vec![
        ("a chunk above 64 bits", first("10000000000000000\r\n".to_owned())),
        (
            "a chunk whose size overflows to its own",
            first(format!("1000000000000{length:04x}\r\n")),
        ),
        ("a negative chunk", first(format!("-{length:x}\r\n"))),
        ("a chunk with a sign", first(format!("+{length:x}\r\n"))),
        ("a chunk with 0x", first(format!("0x{length:x}\r\n"))),
        ("a chunk without a size", first("\r\n".to_owned())),
        ("a chunk that is no number", first("size\r\n".to_owned())),
        ("a chunk with a space before its size", first(format!(" {length:x}\r\n"))),
        ("a chunk of two sizes", first(format!("{length:x} {length:x}\r\n"))),
        ("a chunk's size with a bare LF", first(format!("{length:x}\n"))),
        ("a chunk's size with a bare CR", first(format!("{length:x}\r"))),
        ("a bare LF in a chunk's extension", first(format!("{length:x};a\nb\r\n"))),
        ("a chunk's extension of 100 kB", first(format!("{length:x};{}\r\n", "a".repeat(100_000)))),
        ("a chunk that is longer than its size", first(format!("{:x}\r\n", length - 1))),
        ("a chunk without its line end", parts.chunked(&format!("{length:x}\r\n{body}0\r\n\r\n"))),
        ("a chunk with a bare LF", parts.chunked(&format!("{length:x}\r\n{body}\n0\r\n\r\n"))),
        ("a last chunk with a sign", parts.chunked(&format!("{length:x}\r\n{body}\r\n-0\r\n\r\n"))),
        (
            "trailers of 100 kB",
            parts.chunked(&format!(
                "{length:x}\r\n{body}\r\n0\r\nx: {}\r\n\r\n",
                "y".repeat(100_000)
            )),
        ),
        ("a body that is not chunked", parts.chunked(body)),
    ]
}

/// Requests that hide a second one, which one of two servers in a row would see.
fn smuggled(parts: &Parts) -> Vec<(&'static str, Vec<u8>)> {
    let hidden = String::from_utf8(parts.with_headers("")).unwrap();
    let behind_chunks = format!("0\r\n\r\n{hidden}");
    let length = behind_chunks.len();
    let both = |first: String, second: String| parts.framed(&(first + &second), &behind_chunks);
    let (sized, chunked) =
        (format!("content-length: {length}\r\n"), "transfer-encoding: chunked\r\n".to_owned());
    vec![
        ("a length, then chunked", both(sized.clone(), chunked.clone())),
        ("chunked, then a length", both(chunked.clone(), sized.clone())),
        (
            "chunked between two lengths",
            both(sized.clone() + &chunked, "content-length: 5\r\n".into()),
        ),
        (
            "a length and another coding",
            both(sized.clone(), "transfer-encoding: x, chunked\r\n".to_owned()),
        ),
        (
            "a length and chunked, for a body that is not chunked",
            parts
                .framed(&format!("content-length: {}\r\n{chunked}", parts.body.len()), &parts.body),
        ),
        ("a malformed header before another request", {
            let mut bytes = parts.framed("content-length: 0\r\nx\0: y\r\n", "");
            bytes.extend(hidden.bytes());
            bytes
        }),
    ]
}

/// Requests whose client goes away in the middle.
fn cut_off(parts: &Parts) -> Vec<(&'static str, Vec<u8>)> {
    let body = &parts.body;
    let whole = parts.with_headers("");
    let sized = format!("content-length: {}\r\n", body.len() + 1);
    vec![
        ("a head that ends in the first line", whole[..5].to_vec()),
        ("a head without its empty line", whole[..whole.len() - body.len() - 2].to_vec()),
        ("a body that is one byte short", whole[..whole.len() - 1].to_vec()),
        ("a length that is one byte long", parts.framed(&sized, body)),
        ("no last chunk", parts.chunked(&format!("{:x}\r\n{body}\r\n", body.len()))),
        (
            "a last chunk without its end",
            parts.chunked(&format!("{:x}\r\n{body}\r\n0\r\n", body.len())),
        ),
        (
            "a chunk that is one byte short",
            parts.chunked(&format!("{:x}\r\n{body}", body.len() + 1)),
        ),
    ]
}
