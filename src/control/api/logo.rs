//! A channel's logo: put, shown, removed. Its place is a field of the channel, and may be said along with the picture.

use http::header;
use serde_json::{Map, Value, json};
use tokio::sync::Semaphore;
use utoipa::{IntoParams, ToSchema};

use super::answer::{Answer, Body};
use super::call::Call;
use super::change::{Done, change};
use super::problem::{Code, Problem};
use crate::control::ledger::{self, LOGOS};
use crate::control::lifecycle::{Command, Input};
use crate::control::record::{LogoFile, LogoImage, LogoSettings};
use crate::control::state::Need;
use crate::media::logo::{Corner, Hundredths, LogoError, LogoPixels, PNG_BYTES_MAX};

/// PNGs that are unpacked at a time: each takes up to 80 MB meanwhile.
static READING: Semaphore = Semaphore::const_new(2);

/// Where it lies: what is not said stays as it is.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes parameters that `place` reads")]
pub(super) struct PlaceQuery {
    corner: Option<Corner>,
    /// Percent of the picture's width.
    #[param(minimum = 1, maximum = 50)]
    width: Option<f64>,
    /// From either edge, percent of the picture's width.
    #[param(minimum = 0, maximum = 20)]
    margin: Option<f64>,
    /// 1: as the PNG is; 0: not to be seen.
    #[param(minimum = 0, maximum = 1)]
    opacity: Option<f64>,
}

/// A PNG.
#[derive(ToSchema)]
#[schema(value_type = String, format = Binary)]
#[expect(dead_code, reason = "describes bytes")]
pub(super) struct Png(Vec<u8>);

/// The picture of the logo, as it was put.
#[utoipa::path(get, path = "/v1/channels/{id}/logo", tag = "channels", security(("token" = ["channels:read"])),
    params(("id" = String, Path, description = "The channel's name or id.")),
    responses((status = 200, description = "The PNG.", content((Png = "image/png")),
        headers(("ETag" = String, description = "The channel's revision.")))))]
pub(super) async fn get_channel_logo(call: &Call) -> Result<Answer, Problem> {
    call.query.expect_known(&[])?;
    call.read(|view| {
        let channel = call.channel(view)?;
        let png = ledger::logo(view, channel.id)?.ok_or_else(none)?;
        Ok(Answer::new(http::StatusCode::OK, Body::Png(png.into())).revision(channel.revision))
    })
}

/// Put a logo over the channel's pictures: a PNG of at most 512 KiB and 2048x2048, best with alpha. On air it is seen within
/// a second. A transmux channel takes none.
#[utoipa::path(put, path = "/v1/channels/{id}/logo", tag = "channels", security(("token" = ["channels:write"])),
    params(("id" = String, Path, description = "The channel's name or id."),
        PlaceQuery,
        ("If-Match" = Option<String>, Header, description = "ETag that the change is meant for.")),
    request_body(content((Png = "image/png"))),
    responses((status = 200, description = "The logo as it is now.", body = LogoSettings,
        headers(("ETag" = String, description = "The channel's revision.")))))]
pub(super) async fn put_channel_logo(call: &Call) -> Result<Answer, Problem> {
    call.query.expect_known(&["corner", "width", "margin", "opacity"])?;
    let (precondition, place) = (call.precondition()?, place(call)?);
    // Before it costs anything.
    call.read(|view| call.channel(view))?;
    let image = read(call).await?;
    let file = LogoFile::of(&call.body);
    let (id, token) = (call.id().to_owned(), call.token().clone());
    change(call, Need::Ordinary, move |txn, now| {
        let channel = super::call::reachable(&txn.view(), &id, &token)?;
        precondition.check(channel.revision)?;
        let command = Command::Logo { image: Some(image.clone()), place: place.clone() };
        let made = ledger::step(txn, channel.id, &Input::Command(command), now)?;
        txn.put(&LOGOS, &channel.id.0, &file)?;
        let channel = made.channel.clone().ok_or_else(|| Problem::not_found("channel"))?;
        let answer = Answer::json(&channel.config.policy.logo).revision(channel.revision);
        Ok(Done::new(vec![made], answer, channel.id))
    })
    .await
}

/// Take the logo away. Its place is kept for the next one.
#[utoipa::path(delete, path = "/v1/channels/{id}/logo", tag = "channels", security(("token" = ["channels:write"])),
    params(("id" = String, Path, description = "The channel's name or id."),
        ("If-Match" = Option<String>, Header, description = "ETag that the change is meant for.")),
    responses((status = 204, description = "It is gone.")))]
pub(super) async fn delete_channel_logo(call: &Call) -> Result<Answer, Problem> {
    call.query.expect_known(&[])?;
    let (precondition, id, token) = (call.precondition()?, call.id().to_owned(), call.token().clone());
    change(call, Need::Ordinary, move |txn, now| {
        let channel = super::call::reachable(&txn.view(), &id, &token)?;
        precondition.check(channel.revision)?;
        if channel.config.policy.logo.as_ref().is_none_or(|logo| logo.image.is_none()) {
            return Err(none());
        }
        let command = Command::Logo { image: None, place: Map::new() };
        let made = ledger::step(txn, channel.id, &Input::Command(command), now)?;
        Ok(Done::new(vec![made], Answer::gone(), channel.id))
    })
    .await
}

fn none() -> Problem {
    Problem::new(Code::NotFound, "the channel has no logo: PUT a PNG to this address")
}

/// The PNG of the body, unpacked to the last pixel: what was taken can be shown.
async fn read(call: &Call) -> Result<LogoImage, Problem> {
    let kind = call.headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let plain = kind.split(';').next().unwrap_or_default().trim();
    if call.body.is_empty() {
        return Err(Problem::new(Code::BodyMalformed, "there is no body: send the PNG's bytes"));
    }
    if !plain.eq_ignore_ascii_case("image/png") {
        let what = format!("this address takes image/png, not {plain:?}: say Content-Type: image/png");
        return Err(Problem::new(Code::BodyType, what));
    }
    if call.body.len() > PNG_BYTES_MAX {
        return Err(Problem::new(Code::BodyTooLarge, LogoError::TooLong(call.body.len()).to_string()));
    }
    // Never closed.
    let _turn = READING.acquire().await;
    let png = call.body.clone();
    let pixels = tokio::task::spawn_blocking(move || LogoPixels::read(&png).map(|pixels| pixels.size())).await;
    let size = pixels.map_err(|e| Problem::new(Code::Internal, format!("the PNG's reader stopped: {e}")))?;
    let size = size.map_err(|error| Problem::field("", error.to_string()))?;
    Ok(LogoImage::of(&call.body, size))
}

/// Where it is to lie, as a patch of the channel's field.
fn place(call: &Call) -> Result<Map<String, Value>, Problem> {
    let mut place = Map::new();
    let corners = "top-left, top-right, bottom-left or bottom-right";
    let corner = call.query.read("corner", corners, |text| serde_json::from_value::<Corner>(Value::from(text)).ok())?;
    place.extend(corner.map(|corner| ("corner".to_owned(), json!(corner))));
    for (name, write) in [
        ("width", "percent of the picture's width from 1 to 50"),
        ("margin", "percent of the picture's width from 0 to 20"),
        ("opacity", "a number from 0 to 1"),
    ] {
        let number = call.query.read(name, write, |text| text.parse::<Hundredths>().ok())?;
        place.extend(number.map(|number| (name.to_owned(), json!(number))));
    }
    Ok(place)
}
