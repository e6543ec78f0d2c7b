//! The pages and the answers of the server.

use std::{sync::Arc, time::Instant};

use anyhow::Context;
use axum::{
    Router,
    extract::{Query as FromQuery, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response, Sse, sse},
    routing::get,
};
use candle_core::{Device, Tensor};
use clap::ValueEnum;
use ddpm_eval::{DiffusionClassifier, ErrorWeighting};
use ddpm_model::{GuidanceOptions, SamplerName};
use serde_json::{Value, json};
use tokio::{sync::mpsc, task::spawn_blocking};

use super::{
    hosts::Hosts,
    request::{Asked, DRAWING_PNG, MASK_PNG, Model, Query, Wrong, levels, mask_levels, png},
    scheduler::{Event, Full, Scheduler},
    stream::{Events, event},
    training::Training,
};
use crate::{args::Common, output, picture};

/// The noise samples of a classification.
const NUM_NOISE: usize = 20;

/// The index of a drawing, which selects its noise.
const DRAWING: u64 = 0;

/// The files of the page: path, type and content.
macro_rules! page {
    ($($path:literal: $name:literal, $kind:literal;)*) => {
        [$(($path, $kind, include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/assets/page/", $name)))),*]
    };
}

static PAGE: [(&str, &str, &str); 9] = page! {
    "/": "index.html", "text/html; charset=utf-8";
    "/style.css": "style.css", "text/css; charset=utf-8";
    "/main.js": "main.js", "text/javascript; charset=utf-8";
    "/state.js": "state.js", "text/javascript; charset=utf-8";
    "/run.js": "run.js", "text/javascript; charset=utf-8";
    "/player.js": "player.js", "text/javascript; charset=utf-8";
    "/drawing.js": "drawing.js", "text/javascript; charset=utf-8";
    "/training.js": "training.js", "text/javascript; charset=utf-8";
    "/icon.svg": "icon.svg", "image/svg+xml";
};

/// Headers of every answer. The page may load only from its own server, and no other page may show it.
const HEADERS: [(HeaderName, &str); 5] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// What the answers need.
pub(super) struct App {
    pub(super) model: Model,
    pub(super) training: Option<Arc<Training>>,
    pub(super) common: Common,
    pub(super) scheduler: Scheduler,
    pub(super) hosts: Hosts,
}

type Shared = State<Arc<App>>;

pub(super) fn router(app: Arc<App>) -> Router {
    let mut router = Router::new();
    for (path, kind, content) in PAGE {
        router = router.route(path, get(move || async move { ([(header::CONTENT_TYPE, kind)], content) }));
    }
    router
        .route("/api/model", get(model))
        .route("/api/run", get(run))
        .route("/api/picture", get(picture))
        .route("/api/command", get(command))
        .route("/api/classify", get(classify))
        .route("/api/drawing", get(drawing))
        .route("/api/mask", get(mask))
        .route("/api/training", get(training))
        .route("/api/preview", get(preview))
        .layer(middleware::from_fn_with_state(app.clone(), guard))
        .with_state(app)
}

/// Refuses other hosts and requests with a body, which no request of the page has.
async fn guard(State(app): Shared, request: Request, next: Next) -> Response {
    let has_body = |headers: &HeaderMap| {
        let length = headers.get(header::CONTENT_LENGTH).is_some_and(|length| length.as_bytes() != b"0");
        length || headers.contains_key(header::TRANSFER_ENCODING)
    };
    let mut response = if let Some(refusal) = app.hosts.refusal(request.headers()) {
        failure(StatusCode::FORBIDDEN, &refusal)
    } else if has_body(request.headers()) {
        failure(StatusCode::PAYLOAD_TOO_LARGE, "the request has a body, expected none")
    } else {
        next.run(request).await
    };
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// JSON as an answer.
struct Json(Value);

impl IntoResponse for Json {
    fn into_response(self) -> Response {
        ([(header::CONTENT_TYPE, "application/json")], self.0.to_string()).into_response()
    }
}

fn failure(status: StatusCode, message: &str) -> Response {
    (status, Json(json!({ "message": message }))).into_response()
}

impl IntoResponse for Wrong {
    fn into_response(self) -> Response {
        failure(StatusCode::BAD_REQUEST, &self.0)
    }
}

/// Why there is no answer.
enum Refused {
    Wrong(Wrong),
    Full,
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        match self {
            Self::Wrong(wrong) => wrong.into_response(),
            Self::Full => {
                let message = "the server has too much to do; try again in a second";
                ([(header::RETRY_AFTER, "1")], failure(StatusCode::SERVICE_UNAVAILABLE, message))
                    .into_response()
            }
        }
    }
}

impl<E: Into<Wrong>> From<E> for Refused {
    fn from(error: E) -> Self {
        Self::Wrong(error.into())
    }
}

impl From<Full> for Refused {
    fn from(_: Full) -> Self {
        Self::Full
    }
}

type Answer<T> = Result<T, Refused>;

impl App {
    /// The run folder of --run.
    fn training(&self) -> Result<Arc<Training>, Wrong> {
        self.training.clone().ok_or_else(|| Wrong("there is no run; see --run".to_owned()))
    }

    /// The model of a request: the model of --model, or with `of=run` the model of the run folder.
    async fn model(&self, query: &Query) -> Answer<Model> {
        let of = query.iter().find(|(name, _)| name == "of").map(|(_, value)| value.as_str());
        match of {
            None | Some("model") => Ok(self.model.clone()),
            Some("run") => {
                let training = self.training()?;
                let read = spawn_blocking(move || training.model()).await;
                Ok(read.context("the model was not read").and_then(|model| model)?)
            }
            Some(of) => Err(Wrong(format!("`of` is `{of}`, expected model or run")).into()),
        }
    }

    async fn asked(&self, query: &Query) -> Answer<Asked> {
        Ok(Asked::new(query, &self.model(query).await?, &self.common)?)
    }
}

/// Describes a model and the options that it takes.
async fn model(State(app): Shared, FromQuery(query): FromQuery<Query>) -> Answer<Json> {
    let model = app.model(&query).await?;
    let (config, schedule) = (model.denoiser.config(), model.denoiser.schedule());
    let guidance = GuidanceOptions::default().guidance(&model.denoiser)?;
    let samplers: Vec<_> = SamplerName::value_variants().iter().map(output::name).collect();
    Ok(Json(json!({
        "name": model.name,
        "rows": config.rows,
        "cols": config.cols,
        "num_classes": config.num_classes,
        "alphas_cumprod": schedule.alphas_cumprod(),
        "samplers": samplers,
        "guidance_scale": guidance.class.scale(),
        "guidance_interval": [guidance.class.interval().start(), guidance.class.interval().end()],
        "version": env!("CARGO_PKG_VERSION"),
        "has_run": app.training.is_some(),
    })))
}

/// Streams all steps of a run.
async fn run(State(app): Shared, FromQuery(query): FromQuery<Query>) -> Answer<Response> {
    let asked = app.asked(&query).await?;
    let events = app.scheduler.sample(asked)?;
    Ok(Sse::new(Events::new(events, event("end", &json!({})))).into_response())
}

/// The command that makes the picture, and the class of each image.
async fn command(State(app): Shared, FromQuery(query): FromQuery<Query>) -> Answer<Json> {
    let asked = app.asked(&query).await?;
    let labels = if asked.recipe.classes.is_empty() { Vec::new() } else { asked.job.all().labels };
    Ok(Json(json!({ "command": asked.recipe.command(), "labels": labels, "steps": asked.recipe.steps })))
}

/// The PNG that `sample` writes with the same options.
async fn picture(State(app): Shared, FromQuery(query): FromQuery<Query>) -> Answer<Response> {
    let drawn = app.asked(&query).await?;
    let mut events = app.scheduler.sample(drawn.clone())?;
    let mut last = Vec::new();
    while let Some(event) = events.recv().await {
        match event {
            Event::Start(x_t) => last = x_t,
            Event::Step(step) => last = step.x_t,
            Event::Failed(message) => return Err(Wrong(message).into()),
        }
    }
    let encoded = spawn_blocking(move || {
        let page = drawn.job.sheet(&drawn.model.denoiser, &last).draw(picture::PNG_TILE_SIDE)?;
        picture::encode_png(&page, Some(&drawn.recipe.encode()?))
    });
    Ok(attached("digits.png", encoded.await.context("the picture was not drawn")??))
}

/// A PNG that a browser saves under a name.
fn attached(name: &str, content: Vec<u8>) -> Response {
    let disposition = format!("attachment; filename=\"{name}\"");
    let headers =
        [(header::CONTENT_TYPE, "image/png".to_owned()), (header::CONTENT_DISPOSITION, disposition)];
    (headers, content).into_response()
}

/// The value of a query.
fn value<'a>(query: &'a Query, wanted: &str) -> Result<&'a str, Wrong> {
    let found = query.iter().find(|(name, _)| name == wanted);
    found.map(|(_, value)| value.as_str()).ok_or_else(|| Wrong(format!("the request has no `{wanted}`")))
}

/// The denoising error of a drawing for each class.
async fn classify(State(app): Shared, FromQuery(query): FromQuery<Query>) -> Answer<Json> {
    let Model { denoiser, .. } = app.model(&query).await?;
    let (config, seed) = (denoiser.config().clone(), app.common.seed);
    let pixels: Vec<f32> =
        levels(value(&query, "drawing")?, &config)?.into_iter().map(ddpm_data::to_model_scale).collect();
    let started = Instant::now();
    let result = app.scheduler.work(move || -> anyhow::Result<Vec<f64>> {
        let schedule = denoiser.schedule();
        let classifier = DiffusionClassifier::new(schedule, config.num_classes, NUM_NOISE, seed)?;
        let x_start = Tensor::from_vec(pixels, (1, config.pixels()), &Device::Cpu)?;
        let errors = classifier.denoiser_errors(&denoiser, &x_start, &[DRAWING])?;
        Ok(errors.sums(&ErrorWeighting::BEST.weights(schedule)?, NUM_NOISE)?)
    })?;
    let errors = result.await.context("the drawing was not classified")??;
    let best = std::iter::zip(0.., &errors).min_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |(class, _)| class);
    let seconds = started.elapsed().as_secs_f64();
    Ok(Json(json!({ "errors": errors, "class": best, "num_noise": NUM_NOISE, "seconds": seconds })))
}

/// A drawing as a file for `sample --from`.
async fn drawing(State(app): Shared, FromQuery(query): FromQuery<Query>) -> Answer<Response> {
    let model = app.model(&query).await?;
    let config = model.denoiser.config();
    Ok(attached(DRAWING_PNG, png(&levels(value(&query, "drawing")?, config)?, config)?))
}

/// A mask as a file for `sample --mask`: white pixels are painted.
async fn mask(State(app): Shared, FromQuery(query): FromQuery<Query>) -> Answer<Response> {
    let model = app.model(&query).await?;
    let config = model.denoiser.config();
    Ok(attached(MASK_PNG, png(&mask_levels(value(&query, "mask")?, config)?, config)?))
}

/// Streams what happens in the run folder.
async fn training(State(app): Shared) -> Answer<Response> {
    let training = app.training()?;
    let (sender, receiver) = mpsc::channel(4);
    tokio::spawn(training.watch(sender));
    let events = Events::new(receiver, event("end", &json!({})));
    Ok(Sse::new(events).keep_alive(sse::KeepAlive::default()).into_response())
}

/// The newest preview of the run.
async fn preview(State(app): Shared) -> Answer<Response> {
    let training = app.training()?;
    let read = spawn_blocking(move || training.preview()).await.context("the preview was not read")?;
    Ok(([(header::CONTENT_TYPE, "image/png")], read?).into_response())
}
