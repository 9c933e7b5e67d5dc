//! The JSON bodies of the budget definitions with their ETags, rendered once per change of the catalog.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use schemas::{Budget, BudgetId};
use serde::Serialize;
use storage::control::Catalog;

use super::response::tagged;
use crate::answer::Rendered;

/// Renders definitions, and keeps the bodies until the catalog changes.
#[derive(Debug, Default)]
pub struct RenderedDefinitions {
    current: ArcSwapOption<RenderedCatalog>,
    /// Held while the bodies of a changed catalog replace the previous ones.
    replacing: Mutex<()>,
}

/// The bodies of one catalog; each is rendered on first use.
#[derive(Debug)]
pub struct RenderedCatalog {
    catalog: Arc<Catalog>,
    list: OnceLock<Option<Rendered>>,
    budgets: HashMap<BudgetId, OnceLock<Option<Rendered>>>,
}

#[derive(Serialize)]
struct BudgetList<'a> {
    budgets: Vec<&'a Budget>,
    /// Ids of budgets whose definition only a newer release can read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unreadable: Vec<&'a BudgetId>,
}

impl RenderedDefinitions {
    /// Returns the bodies of a catalog.
    ///
    /// Catalogs are compared by address: a change makes a new one, and the previous one is kept here meanwhile.
    pub fn of(&self, catalog: &Arc<Catalog>) -> Arc<RenderedCatalog> {
        let rendered = || {
            let current = self.current.load_full()?;
            Arc::ptr_eq(&current.catalog, catalog).then_some(current)
        };
        if let Some(current) = rendered() {
            return current;
        }
        let _replacing = self.replacing.lock();
        // Another request may have replaced them meanwhile.
        rendered().unwrap_or_else(|| {
            let next = Arc::new(RenderedCatalog::new(Arc::clone(catalog)));
            self.current.store(Some(Arc::clone(&next)));
            next
        })
    }
}

impl RenderedCatalog {
    fn new(catalog: Arc<Catalog>) -> Self {
        let budgets = catalog.iter().map(|budget| (budget.id.clone(), OnceLock::new())).collect();
        Self { catalog, list: OnceLock::new(), budgets }
    }

    /// Returns the body of the list; `None` if it cannot be serialized.
    pub fn list(&self) -> Option<&Rendered> {
        let render = || {
            let budgets = self.catalog.iter().map(AsRef::as_ref).collect();
            let unreadable = self.catalog.unreadable().collect();
            render(&BudgetList { budgets, unreadable })
        };
        self.list.get_or_init(render).as_ref()
    }

    /// Returns the body of one budget; `None` if there is no such budget, or it cannot be serialized.
    pub fn budget(&self, id: &str) -> Option<&Rendered> {
        let (budget, rendered) = (self.catalog.get(id)?, self.budgets.get(id)?);
        rendered.get_or_init(|| render(budget.as_ref())).as_ref()
    }
}

fn render(content: &impl Serialize) -> Option<Rendered> {
    serde_json::to_vec(content).ok().map(tagged)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_catalog_is_rendered_once_and_a_changed_one_again() {
        let rendered = RenderedDefinitions::default();
        let first = Arc::new(Catalog::default());
        let (once, again) = (rendered.of(&first), rendered.of(&first));
        assert!(Arc::ptr_eq(&once, &again));
        // Catalogs are compared by address, not by content.
        let second = Arc::new(Catalog::default());
        let (before, after) = (rendered.of(&first), rendered.of(&second));
        assert!(!Arc::ptr_eq(&before, &after));
        assert!(Arc::ptr_eq(&after, &rendered.of(&second)));
    }
}
