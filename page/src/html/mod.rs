//! The pages. Every text of a budget is escaped, and isolated from the direction of the text around it.

mod admin;
mod budget;
mod confirm;
mod contract;
mod document;
mod embed;
mod heading;
mod history;
mod list;
mod mine;
mod page_data;
mod problem;
mod results;
mod rows;
mod sign_in;
mod time;

pub use admin::admin_page;
pub use budget::{BudgetPage, FormState, budget_page, results_page};
pub use confirm::{ConfirmPage, confirm_page};
pub use contract::contract_page;
pub use embed::{Theme, embed_frame, embed_page};
pub use list::list_page;
pub use mine::{MinePage, MineState, OwnAllocation, mine_page};
pub use problem::{not_found_page, unavailable_page};
pub use sign_in::{CodeField, SignIn};

#[cfg(test)]
mod tests;
