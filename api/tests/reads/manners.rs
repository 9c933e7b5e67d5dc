//! What HTTP asks of every answer: compression with its ETags, other origins, `OPTIONS`, sniffing.

use http_body_util::BodyExt;

use crate::test_server::*;

const AGGREGATE: &str = "/v1/budgets/town/aggregate?include=distribution";

async fn bytes(server: &TestServer, path: &str, accept: &str) -> (http::HeaderMap, Vec<u8>) {
    let response = server.open_with(path, &[("accept-encoding", accept)]).await;
    let (parts, body) = response.into_parts();
    (parts.headers, body.collect().await.unwrap().to_bytes().to_vec())
}

#[tokio::test(start_paused = true)]
async fn each_compressed_form_of_an_answer_is_smaller_and_is_revalidated_by_its_own_etag() {
    let server = TestServer::new();
    let mut town = budget("town");
    town.revision = 2;
    town.categories.iter_mut().for_each(|category| category.name = "long ".repeat(40));
    server.definitions.put(town);
    server.commit("town", &[(0, [2_500, 7_500])]);
    for path in [AGGREGATE, "/v1/aggregates?budget=town&include=distribution"] {
        let (plain_headers, plain) = bytes(&server, path, "identity").await;
        assert!(!plain_headers.contains_key("content-encoding"));
        for coding in ["gzip", "br", "zstd"] {
            let (headers, body) = bytes(&server, path, coding).await;
            assert_eq!(headers["content-encoding"], coding);
            assert_eq!(headers["vary"], "accept-encoding");
            assert_eq!(headers["content-length"], body.len().to_string());
            assert!(body.len() < plain.len() / 2, "{coding}: {} of {}", body.len(), plain.len());
            assert_ne!(headers["etag"], plain_headers["etag"]);
            let etag = headers["etag"].to_str().unwrap();
            let same = [("accept-encoding", coding), ("if-none-match", etag)];
            let again = server.get_with(path, &same).await;
            assert_eq!((again.status.as_u16(), again.header("etag")), (304, etag), "{coding}");
            assert_eq!(again.header("vary"), "accept-encoding");
            let other = [("accept-encoding", "identity"), ("if-none-match", etag)];
            assert_eq!(server.get_with(path, &other).await.status, 200, "{coding}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn small_answers_and_streams_are_not_compressed() {
    let server = TestServer::new();
    for path in ["/v1/budgets/town", "/v1/budgets/town/aggregate/stream", "/v1/budgets/nope"] {
        let response = server.open_with(path, &[("accept-encoding", "br, gzip")]).await;
        assert!(!response.headers().contains_key("content-encoding"), "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn scripts_of_every_origin_may_read_public_answers_and_their_problems() {
    let server = TestServer::new();
    let origin = ("origin", "https://news.example");
    for path in ["/v1/budgets", "/v1/budgets/town/aggregate", "/v1/budgets/nope", "/openapi.json"] {
        let got = server.get_with(path, &[origin]).await;
        assert_eq!(got.header("access-control-allow-origin"), "*", "{path}");
        assert_eq!(got.header("access-control-expose-headers"), "*", "{path}");
        assert_eq!(got.header("access-control-allow-credentials"), "", "{path}");
        let ask = [origin, ("access-control-request-method", "GET")];
        let preflight = server.send("OPTIONS", path, &ask).await;
        assert_eq!(preflight.status, 204, "{path}");
        assert_eq!(preflight.header("access-control-allow-methods"), "GET, HEAD");
        assert_eq!(preflight.header("access-control-max-age"), "7200");
    }
    for path in ["/", "/budgets/town", "/v1/admin/whoami", "/v1/budgets/town/submissions/p-1"] {
        let got = server.get_with(path, &[origin]).await;
        assert_eq!(got.header("access-control-allow-origin"), "", "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn options_lists_the_methods_of_a_route_and_every_answer_forbids_sniffing() {
    let server = TestServer::new();
    let options = server.send("OPTIONS", "/v1/budgets/town", &[]).await;
    assert_eq!((options.status.as_u16(), options.header("allow")), (204, "GET,HEAD"));
    assert_eq!(options.text, "");
    assert_eq!(server.send("OPTIONS", "/v1/nothing", &[]).await.status, 404);
    for path in ["/v1/budgets", "/v1/nothing", "/", "/docs", "/livez"] {
        assert_eq!(server.get(path).await.header("x-content-type-options"), "nosniff", "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_parameter_that_is_repeated_is_one_fault() {
    let server = TestServer::new();
    let path = format!("{AGGREGATE}{}", "&include".repeat(4_000));
    let got = server.get(&path).await;
    assert_eq!((got.status.as_u16(), got.json()["errors"].as_array().unwrap().len()), (400, 1));
}

#[tokio::test(start_paused = true)]
async fn a_compressed_request_body_is_refused() {
    let server = TestServer::new();
    let headers = [("content-encoding", "gzip"), ("content-type", "application/json")];
    let got = server.send_body("POST", "/v1/budgets/town/aggregate", &headers, "{}").await;
    assert_eq!((got.status.as_u16(), got.header("accept-encoding")), (415, "identity"));
}
