//! Results on other sites: embeds, the script that shows them, oEmbed, and what pages say of themselves.

use crate::test_server::*;

const OURS: &str = "https://a.example";
const OEMBED: &str = "/oembed?url=https%3A%2F%2Fa.example%2Fbudgets%2Ftown%2Fresults";

fn server(settings: &[(&str, &str)]) -> TestServer {
    let server = TestServer::with_settings(settings);
    server.commit("town", &[(0, [2_500, 7_500])]);
    server
}

#[tokio::test(start_paused = true)]
async fn an_embed_shows_results_without_a_form_and_may_be_framed_by_the_configured_sites() {
    for (ancestors, sources) in
        [("*", "*"), ("https://news.example", "https://news.example"), ("none", "'none'")]
    {
        let server = server(&[("page.embed_ancestors", ancestors)]);
        let embed = server.get("/embed/budgets/town/results?lang=de&theme=dark").await;
        assert_eq!(embed.status, 200);
        let policy = embed.header("content-security-policy");
        assert!(policy.contains(&format!("frame-ancestors {sources};")), "{policy}");
        assert_eq!(embed.header("cross-origin-resource-policy"), "cross-origin");
        assert_eq!(embed.header("x-frame-options"), "");
        assert!(embed.text.contains("lang=\"de\"") && embed.text.contains("data-theme=\"dark\""));
        assert!(embed.text.contains("<table id=\"averages\"") && !embed.text.contains("<form"));
        assert!(embed.text.contains("href=\"/budgets/town?lang=de\" target=\"_blank\""));
        let unknown = server.get("/embed/budgets/nope/results").await;
        assert_eq!(unknown.status, 404);
        assert!(unknown.header("content-security-policy").contains(sources));
        let page = server.get("/budgets/town/results").await;
        assert!(page.header("content-security-policy").contains("frame-ancestors 'none'"));
    }
}

#[tokio::test(start_paused = true)]
async fn the_script_of_embeds_is_for_every_site_and_is_revalidated() {
    let server = server(&[]);
    let script = server.get("/embed.js").await;
    assert_eq!(script.header("content-type"), "text/javascript; charset=utf-8");
    assert_eq!(script.header("cross-origin-resource-policy"), "cross-origin");
    assert_eq!(script.header("cache-control"), "public, max-age=3600");
    let again = server.get_with("/embed.js", &[("if-none-match", script.header("etag"))]).await;
    assert_eq!(again.status, 304);
}

#[tokio::test(start_paused = true)]
async fn oembed_describes_our_own_pages_within_the_requested_size() {
    let server = server(&[("page.public_url", OURS)]);
    let got = server.get(&format!("{OEMBED}&maxwidth=300&maxheight=5000")).await;
    let answer = got.json();
    assert_eq!((&answer["version"], &answer["type"]), (&"1.0".into(), &"rich".into()));
    assert_eq!((&answer["width"], &answer["height"]), (&300.into(), &720.into()));
    let html = answer["html"].as_str().unwrap();
    assert!(
        html.starts_with("<iframe src=\"https://a.example/embed/budgets/town/results?lang=en\""),
        "{html}"
    );
    assert!(!got.text.contains("people"), "no number of the results");
    for (query, status) in [
        ("?url=https%3A%2F%2Fevil.example%2Fbudgets%2Ftown", 404),
        ("?url=https%3A%2F%2Fa.example%2Fbudgets%2Fnope", 404),
        ("", 400),
        ("?url=x&maxwidth=wide", 400),
        ("?url=x&format=xml", 406),
    ] {
        let got = server.get(&format!("/oembed{query}")).await;
        assert_eq!(got.status, status, "{query}");
        assert_eq!(got.header("content-type"), "application/problem+json", "{query}");
    }
}

#[tokio::test(start_paused = true)]
async fn pages_name_absolute_addresses_only_if_the_service_knows_its_own() {
    let known = server(&[("page.public_url", OURS)]);
    let page = known.get_with("/budgets/town/results", &[("host", "evil.example")]).await.text;
    for part in [
        "<link rel=\"canonical\" href=\"https://a.example/budgets/town/results\">",
        "type=\"application/json+oembed\"",
        "href=\"https://a.example/oembed?url=https%3A%2F%2Fa.example%2Fbudgets%2Ftown%2Fresults\"",
        "<meta property=\"og:url\" content=\"https://a.example/budgets/town/results\">",
        "src=&quot;https://a.example/embed.js&quot;",
    ] {
        assert!(page.contains(part), "{part}\n{page}");
    }
    assert!(!page.contains("evil.example"));
    let unknown = server(&[]);
    let page = unknown.get("/budgets/town/results").await.text;
    assert!(
        !page.contains("oembed") && !page.contains("og:url") && !page.contains("http://"),
        "{page}"
    );
    assert_eq!(unknown.get(OEMBED).await.status, 404);
}
