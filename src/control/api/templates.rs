//! Templates: ladders with a name, copied into a channel when it is made.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::answer::Answer;
use super::call::{Call, KeyHeader};
use super::change::{Done, change};
use super::page::{Page, PageQuery, asked, collect, newest_first, page};
use super::problem::{Code, Problem};
use crate::control::lifecycle;
use crate::control::record::Utc;
use crate::control::state::{Db, Need, Read, Table, Ulid};
use crate::media::channel::{ChannelName, Ladder};
use crate::media::id;
use crate::sys::random;

const TEMPLATES: Table<Ulid, TemplateRecord> = Table::json(Db::Templates, 1);
/// Templates of one box.
const TEMPLATES_MAX: u64 = 200;
const PREFIX: &str = "tp_";

/// A ladder with a name. A channel is made `from` it by a copy: a change of the template touches no channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = Template)]
pub(super) struct TemplateRecord {
    id: String,
    pub(super) name: ChannelName,
    pub(super) ladder: Ladder,
    /// Grows with every change: the ETag.
    revision: u64,
    created_at: Utc,
    updated_at: Utc,
}

/// A new template.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewTemplate {
    name: ChannelName,
    /// Best first.
    ladder: Ladder,
}

/// A JSON merge patch: what is not named stays.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TemplatePatch {
    #[schema(nullable = false)]
    name: Option<ChannelName>,
    /// Best first.
    #[schema(nullable = false)]
    ladder: Option<Ladder>,
}

/// Templates, newest first.
#[utoipa::path(get, path = "/v1/templates", tag = "templates", security(("token" = ["channels:read"])),
    params(PageQuery),
    responses((status = 200, description = "A page of templates.", body = Page<TemplateRecord>)))]
pub(super) async fn list_templates(call: &Call) -> Result<Answer, Problem> {
    let asked = asked(call, &[])?;
    let (items, more) = call.read(|view| {
        let ids = newest_first(view, &TEMPLATES)?;
        collect(asked, ids.into_iter(), |id| Ok(view.get(&TEMPLATES, &Ulid(id))?))
    })?;
    Ok(page(call, items, more))
}

/// Make a template.
#[utoipa::path(post, path = "/v1/templates", tag = "templates", security(("token" = ["channels:write"])),
    params(KeyHeader),
    request_body = NewTemplate,
    responses((status = 201, description = "The template was made.", body = TemplateRecord,
        headers(("ETag" = String, description = "The template's revision."), ("Location" = String)))))]
pub(super) async fn create_template(call: &Call) -> Result<Answer, Problem> {
    call.query.expect_known(&[])?;
    call.expect_unlimited()?;
    let body = call.json()?;
    let (name, ladder) = match read(&body)? {
        (Some(name), Some(ladder)) => (name, ladder),
        (None, _) => return Err(Problem::field("/name", "write the template's name")),
        (_, None) => return Err(Problem::field("/ladder", "write the template's ladder")),
    };
    change(call, Need::Ordinary, move |txn, now| {
        if txn.view().count(Db::Templates)? >= TEMPLATES_MAX {
            let what = format!("this box has its {TEMPLATES_MAX} templates: delete one first");
            return Err(Problem::new(Code::TooMany, what));
        }
        expect_free(&txn.view(), &name, None)?;
        let key = Ulid::from_parts(now.unix_millis(), random::bits());
        let at = Utc::from(now);
        let (id, name, ladder) = (format!("{PREFIX}{key}"), name.clone(), ladder.clone());
        let template = TemplateRecord { id, name, ladder, revision: 1, created_at: at, updated_at: at };
        txn.put(&TEMPLATES, &key, &template)?;
        let answer = Answer::created(format!("/v1/templates/{}", template.id), &template).revision(1);
        Ok(Done::new(Vec::new(), answer, &template.id))
    })
    .await
}

/// One template.
#[utoipa::path(get, path = "/v1/templates/{id}", tag = "templates", security(("token" = ["channels:read"])),
    params(("id" = String, Path, description = "Its name or id.")),
    responses((status = 200, description = "The template.", body = TemplateRecord,
        headers(("ETag" = String, description = "The template's revision.")))))]
pub(super) async fn get_template(call: &Call) -> Result<Answer, Problem> {
    call.query.expect_known(&[])?;
    let template = call.read(|view| find(view, call.id()))?.ok_or_else(|| Problem::not_found("template"))?;
    Ok(Answer::json(&template).revision(template.revision))
}

/// Change a template. Channels that were made from it stay as they are.
#[utoipa::path(patch, path = "/v1/templates/{id}", tag = "templates", security(("token" = ["channels:write"])),
    params(("id" = String, Path, description = "Its name or id."),
        ("If-Match" = Option<String>, Header, description = "ETag that the change is meant for.")),
    request_body(content((TemplatePatch = "application/merge-patch+json"), (TemplatePatch = "application/json"))),
    responses((status = 200, description = "The template as it is now.", body = TemplateRecord,
        headers(("ETag" = String, description = "The template's revision.")))))]
pub(super) async fn update_template(call: &Call) -> Result<Answer, Problem> {
    call.query.expect_known(&[])?;
    call.expect_unlimited()?;
    let (name, ladder) = read(&call.json_or(&["application/merge-patch+json"])?)?;
    let (id, precondition) = (call.id().to_owned(), call.precondition()?);
    change(call, Need::Ordinary, move |txn, now| {
        let mut template = find(&txn.view(), &id)?.ok_or_else(|| Problem::not_found("template"))?;
        precondition.check(template.revision)?;
        let before = template.clone();
        if let Some(name) = &name {
            expect_free(&txn.view(), name, Some(&template.id))?;
            template.name = name.clone();
        }
        template.ladder = ladder.clone().unwrap_or(template.ladder);
        if template != before {
            template.revision += 1;
            template.updated_at = now.into();
            txn.put(&TEMPLATES, &key(&template), &template)?;
        }
        Ok(Done::new(Vec::new(), Answer::json(&template).revision(template.revision), &template.id))
    })
    .await
}

/// Delete a template. Channels that were made from it stay as they are.
#[utoipa::path(delete, path = "/v1/templates/{id}", tag = "templates", security(("token" = ["channels:write"])),
    params(("id" = String, Path, description = "Its name or id."),
        ("If-Match" = Option<String>, Header, description = "ETag that the deletion is meant for.")),
    responses((status = 204, description = "It is gone.")))]
pub(super) async fn delete_template(call: &Call) -> Result<Answer, Problem> {
    call.query.expect_known(&[])?;
    call.expect_unlimited()?;
    let (id, precondition) = (call.id().to_owned(), call.precondition()?);
    change(call, Need::Essential, move |txn, _| {
        let template = find(&txn.view(), &id)?.ok_or_else(|| Problem::not_found("template"))?;
        precondition.check(template.revision)?;
        txn.delete(&TEMPLATES, &key(&template))?;
        Ok(Done::new(Vec::new(), Answer::gone(), &template.id))
    })
    .await
}

/// The template of that id or name. There are few: names have no index.
pub(super) fn find(view: &Read<'_>, id_or_name: &str) -> Result<Option<TemplateRecord>, Problem> {
    if let Ok(key) = id::parse(PREFIX, id_or_name) {
        return Ok(view.get(&TEMPLATES, &key)?);
    }
    let mut rows = view.scan(&TEMPLATES)?.filter_map(Result::ok);
    Ok(rows.find(|(_, template)| template.name.as_str() == id_or_name).map(|(_, template)| template))
}

fn key(template: &TemplateRecord) -> Ulid {
    id::parse(PREFIX, &template.id).expect("a template's id holds a ULID")
}

fn expect_free(view: &Read<'_>, name: &ChannelName, but: Option<&str>) -> Result<(), Problem> {
    match find(view, name.as_str())? {
        Some(other) if Some(other.id.as_str()) != but => {
            let what = format!("there is a template \"{name}\" already: take another name");
            Err(Problem::new(Code::NameTaken, what))
        }
        _ => Ok(()),
    }
}

/// Name and ladder, each if it is there. A ladder is what a channel would take.
fn read(body: &Value) -> Result<(Option<ChannelName>, Option<Ladder>), Problem> {
    let Some(fields) = body.as_object() else {
        return Err(Problem::field("", "write a JSON object with name and ladder"));
    };
    let mut wrong = Vec::new();
    for unknown in fields.keys().filter(|field| !["name", "ladder"].contains(&field.as_str())) {
        wrong.push((format!("/{unknown}"), "unknown field: known are name, ladder".to_owned()));
    }
    let name = fields.get("name").and_then(|value| match value.as_str().map(ChannelName::new) {
        Some(Ok(name)) => Some(name),
        _ => {
            wrong.push(("/name".to_owned(), "write 1 to 63 of a-z, 0-9 and '-' (for example \"sport\")".to_owned()));
            None
        }
    });
    let ladder = match fields.get("ladder") {
        None => None,
        Some(Value::Null) => {
            wrong.push(("/ladder".to_owned(), "a template is its ladder: write a list of renditions".to_owned()));
            None
        }
        Some(ladder) => match lifecycle::read_new(&json!({ "name": "template", "ladder": ladder })) {
            Ok(config) => config.profile.ladder,
            Err(refusal) => {
                wrong.extend(refusal.errors.into_iter().map(|e| (e.pointer, e.detail)));
                None
            }
        },
    };
    if wrong.is_empty() { Ok((name, ladder)) } else { Err(Problem::fields(wrong)) }
}
