//! What SRT publishers of one channel must encrypt with: put, taken away, never shown.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::answer::Answer;
use super::call::Call;
use super::channels::{command, host};
use super::problem::Problem;
use super::views::{Inputs, inputs};
use crate::control::lifecycle::Command;
use crate::media::key::Passphrase;

/// A passphrase of its own for a channel.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewPassphrase {
    #[schema(value_type = String, min_length = 10, max_length = 79)]
    passphrase: Passphrase,
}

/// Give the channel a passphrase of its own. Its next SRT publishers encrypt with it, whatever the box wants of the others;
/// who is on air stays. Publishers over QUIC are encrypted anyway and give none.
#[utoipa::path(put, path = "/v1/channels/{id}/srt-passphrase", tag = "channels",
    security(("token" = ["channels:write"])),
    params(("id" = String, Path, description = "The channel's name or id."),
        ("If-Match" = Option<String>, Header, description = "ETag that the change is meant for.")),
    request_body = NewPassphrase,
    responses((status = 200, description = "The inputs as they are now.", body = Inputs,
        headers(("ETag" = String, description = "The channel's revision.")))))]
pub(super) async fn put_channel_srt_passphrase(call: &Call) -> Result<Answer, Problem> {
    call.query.expect_known(&[])?;
    let body = call.json()?;
    let only = body.as_object().is_some_and(|fields| fields.keys().eq(["passphrase"]));
    let text = body.get("passphrase").and_then(serde_json::Value::as_str).filter(|_| only);
    let text = text.ok_or_else(|| Problem::field("", "write {\"passphrase\": \"10 to 79 bytes\"} and nothing else"))?;
    let passphrase = Passphrase::new(text).map_err(|why| Problem::field("/passphrase", why))?;
    let (host, options, look) = (host(call), call.api.options.clone(), Arc::clone(&call.api.media.pull));
    let put = Command::Passphrase(Some(passphrase));
    command(call, call.precondition()?, put, move |channel, _, _| {
        let inputs = inputs(channel, &host, &options, look(&channel.config.name));
        Answer::json(&Inputs { inputs }).revision(channel.revision)
    })
    .await
}

/// Take the channel's own passphrase away: what the box wants of all holds again.
#[utoipa::path(delete, path = "/v1/channels/{id}/srt-passphrase", tag = "channels",
    security(("token" = ["channels:write"])),
    params(("id" = String, Path, description = "The channel's name or id."),
        ("If-Match" = Option<String>, Header, description = "ETag that the change is meant for.")),
    responses((status = 204, description = "It is gone.")))]
pub(super) async fn delete_channel_srt_passphrase(call: &Call) -> Result<Answer, Problem> {
    call.query.expect_known(&[])?;
    command(call, call.precondition()?, Command::Passphrase(None), |_, _, _| Answer::gone()).await
}
