//! The audit, as a list.

use serde::Serialize;
use utoipa::ToSchema;

use super::answer::Answer;
use super::call::Call;
use super::change::{AUDIT, AuditRecord};
use super::page::{Page, PageQuery, asked, numbered, page};
use super::problem::Problem;

/// What somebody did, or tried to.
#[derive(Serialize, ToSchema)]
#[schema(as = AuditEntry)]
pub(super) struct AuditView {
    seq: u64,
    #[serde(flatten)]
    record: AuditRecord,
}

/// Who changed what, newest first: the last 100,000 changes and refused attempts, the latter thinned where they come in
/// crowds.
#[utoipa::path(get, path = "/v1/audit", tag = "tokens", security(("token" = ["tokens:admin"])),
    params(PageQuery),
    responses((status = 200, description = "A page of the audit.", body = Page<AuditView>)))]
pub(super) async fn list_audit(call: &Call) -> Result<Answer, Problem> {
    let asked = asked(call, &[])?;
    call.expect_unlimited()?;
    let (items, more) =
        call.read(|view| numbered(view, &AUDIT, asked, |seq, record| Some(AuditView { seq, record })))?;
    Ok(page(call, items, more))
}
