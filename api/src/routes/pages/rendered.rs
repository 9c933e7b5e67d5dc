//! Pages that everyone may see, rendered and compressed once for each change of their content.
//!
//! While results change all the time, a page is rendered at most once a second; its script reads the newest results.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use moka::sync::Cache;
use page::html::Theme;
use page::language::Language;
use page::view::Withheld;
use schemas::BudgetId;
use tokio::time::Instant;

use super::html_response::PageBytes;

/// How long a page may show older results than this process has.
const RERENDER_INTERVAL: Duration = Duration::from_secs(1);
/// Maximum memory of all kept pages, in bytes.
const MAX_BYTES: u64 = 64 << 20;

/// Which page of a budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum PageKind {
    /// The page with the form.
    Budget,
    /// The page with the results alone.
    Results,
    /// The results for a frame on another site.
    Embed(Theme),
}

/// The address of a kept page.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct PageKey {
    pub budget: BudgetId,
    pub kind: PageKind,
    pub language: Language,
}

/// What a page was rendered from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Basis {
    /// The revision of the budget's definition.
    pub revision: u64,
    /// Whether the budget is open.
    pub state: &'static str,
    pub results: ResultsBasis,
    /// The minute of which the page shows the history, if it goes on.
    pub history_minute: Option<i64>,
}

/// Which results a page shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ResultsBasis {
    NotYet,
    Unavailable,
    Withheld(Withheld),
    /// Those with this ETag.
    Shown(HeaderValue),
}

impl Basis {
    /// Whether a page with this basis may be shown in place of one with another: it differs in the version of its
    /// results at most.
    fn differs_in_version_only(&self, other: &Self) -> bool {
        let both_shown = matches!(
            (&self.results, &other.results),
            (ResultsBasis::Shown(_), ResultsBasis::Shown(_))
        );
        self.revision == other.revision && self.state == other.state && both_shown
    }
}

#[derive(Debug, Clone)]
struct Kept {
    basis: Basis,
    rendered_at: Instant,
    page: Arc<PageBytes>,
}

/// The kept pages.
#[derive(Debug)]
pub struct RenderedPages {
    pages: Cache<PageKey, Kept>,
}

impl Default for RenderedPages {
    fn default() -> Self {
        let weigh = |_: &PageKey, kept: &Kept| u32::try_from(kept.page.size()).unwrap_or(u32::MAX);
        Self { pages: Cache::builder().max_capacity(MAX_BYTES).weigher(weigh).build() }
    }
}

impl RenderedPages {
    /// Returns the kept page if it may be shown for `basis`.
    pub(super) fn get(&self, key: &PageKey, basis: &Basis) -> Option<Arc<PageBytes>> {
        let kept = self.pages.get(key)?;
        let is_current = kept.basis == *basis
            || (kept.basis.differs_in_version_only(basis)
                && kept.rendered_at.elapsed() < RERENDER_INTERVAL);
        is_current.then_some(kept.page)
    }

    /// Keeps a page in place of the previous one.
    pub(super) fn keep(&self, key: PageKey, basis: Basis, html: String) -> Arc<PageBytes> {
        let page = Arc::new(PageBytes::new(html));
        self.pages
            .insert(key, Kept { basis, rendered_at: Instant::now(), page: Arc::clone(&page) });
        page
    }
}
