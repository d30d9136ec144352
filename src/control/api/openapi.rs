//! The OpenAPI document: made of the handlers' annotations and the records' own types.

use std::sync::LazyLock;

use http::StatusCode;
use utoipa::openapi::path::Operation;
use utoipa::openapi::request_body::RequestBody;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Array, ContentBuilder, Ref, RefOr, Required, ResponseBuilder, Schema};
use utoipa::{Modify, OpenApi};

use super::answer::{Answer, Body};
use super::call::Call;
use super::problem::{Code, Problem, ProblemView};
use super::{audit, channels, events, logo, passphrase, playback, sessions, stream, system, templates, tokens};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Rung",
        description = "Live channels: made, changed, watched and ended. Every answer that is no success is a Problem \
            (RFC 9457) whose `code` never changes its meaning. Wherever an id stands in a path, a name may stand too.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0")
    ),
    paths(
        channels::list_channels, channels::create_channel, channels::get_channel, channels::update_channel,
        channels::delete_channel, channels::start_channel, channels::stop_channel, channels::rotate_channel_key,
        passphrase::put_channel_srt_passphrase, passphrase::delete_channel_srt_passphrase,
        channels::get_channel_renditions, channels::put_channel_renditions, channels::get_channel_inputs,
        channels::take_snapshot, logo::get_channel_logo, logo::put_channel_logo, logo::delete_channel_logo,
        sessions::list_channel_sessions, sessions::list_sessions, sessions::get_session, sessions::end_session,
        templates::list_templates, templates::create_template, templates::get_template, templates::update_template,
        templates::delete_template, tokens::list_tokens, tokens::create_token, tokens::delete_token,
        playback::sign_channel_playback, playback::list_playback_keys, playback::create_playback_key,
        playback::delete_playback_key,
        events::list_events, stream::stream_events, audit::list_audit, system::get_system, get_openapi,
    ),
    components(schemas(ProblemView, Code, channels::ListedState)),
    tags(
        (name = "channels", description = "Configured live services."),
        (name = "sessions", description = "Broadcasts of channels."),
        (name = "templates", description = "Ladders with a name, copied into channels."),
        (name = "playback", description = "Who may watch: signed addresses, and the keys that sign."),
        (name = "events", description = "What happened, kept for 7 days."),
        (name = "tokens", description = "Who may do what, and who did."),
        (name = "system", description = "The box."),
    ),
    modifiers(&Everywhere)
)]
struct Document;

/// Schemas with members that may be left out: those of requests, and of problems. All others are answers, which hold every
/// member, be it `null`.
const WITH_OPTIONAL_MEMBERS: [&str; 13] = [
    "NewChannel",
    "ChannelPatch",
    "NewRenditions",
    "Rotation",
    "Rendition",
    "Crop",
    "LogoPlace",
    "NewTemplate",
    "TemplatePatch",
    "NewToken",
    "NewPlaybackKey",
    "Problem",
    "FieldProblem",
];

/// What holds for every operation and every schema.
struct Everywhere;

impl Modify for Everywhere {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("rk_ and 64 hexadecimal digits");
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(scheme.build()));
        for item in document.paths.paths.values_mut() {
            let operations = [&mut item.get, &mut item.put, &mut item.post, &mut item.patch, &mut item.delete];
            for operation in operations.into_iter().flatten() {
                add_problem(operation);
                if let Some(RefOr::T(body)) = &mut operation.request_body {
                    say_if_wanted(body);
                }
            }
        }
        for (name, schema) in &mut components.schemas {
            let RefOr::T(schema) = schema else { continue };
            if let Some(of) = name.strip_prefix("Page_") {
                name_items(schema, of);
            }
            if !WITH_OPTIONAL_MEMBERS.contains(&name.as_str()) {
                require_all(schema);
            }
        }
    }
}

/// A body that may be left out is not `null`; all others are wanted.
fn say_if_wanted(body: &mut RequestBody) {
    body.required = Some(Required::True);
    for content in body.content.values_mut() {
        let RefOr::T(content) = content else { continue };
        let Some(RefOr::T(Schema::OneOf(choice))) = &content.schema else { continue };
        let named = choice.items.iter().find(|item| matches!(item, RefOr::Ref(_)));
        content.schema = named.cloned();
        body.required = Some(Required::False);
    }
}

/// The items of a page are what they are elsewhere, not a schema of the page's own.
fn name_items(page: &mut Schema, of: &str) {
    if let Schema::Object(page) = page {
        let items = Schema::from(Array::new(Ref::from_schema_name(of)));
        page.properties.insert("items".to_owned(), RefOr::T(items));
    }
}

fn require_all(schema: &mut Schema) {
    match schema {
        Schema::Object(object) => object.required = object.properties.keys().cloned().collect(),
        Schema::AllOf(parts) => {
            let inline = |part: &mut RefOr<Schema>| {
                if let RefOr::T(part) = part {
                    require_all(part)
                }
            };
            parts.items.iter_mut().for_each(inline);
        }
        _ => {}
    }
}

fn add_problem(operation: &mut Operation) {
    let content = ContentBuilder::new().schema(Some(RefOr::Ref(Ref::from_schema_name("Problem")))).build();
    let problem = ResponseBuilder::new()
        .description("It did not succeed; nothing has changed.")
        .content("application/problem+json", content)
        .build();
    operation.responses.responses.insert("default".to_owned(), RefOr::T(problem));
}

/// The document, as it is served at `/v1/openapi.json`.
pub fn document() -> &'static str {
    static TEXT: LazyLock<String> =
        LazyLock::new(|| Document::openapi().to_pretty_json().expect("the document has a JSON form"));
    &TEXT
}

/// This document.
#[utoipa::path(get, path = "/v1/openapi.json", tag = "system", security(()),
    responses((status = 200, description = "The OpenAPI document.", body = Object)))]
pub(super) async fn get_openapi(call: &Call) -> Result<Answer, Problem> {
    call.query.expect_known(&[])?;
    Ok(Answer::new(StatusCode::OK, Body::Text(document().into())))
}
