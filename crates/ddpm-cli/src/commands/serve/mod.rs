//! `ddpm-cli serve`: a page to play with the model, and to watch a training run.

mod client;
mod hosts;
mod request;
mod routes;
mod scheduler;
mod stream;
mod training;

use std::{
    io,
    net::{SocketAddr, ToSocketAddrs},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use serde_json::json;
use tokio::{
    net::{TcpListener, TcpStream},
    runtime,
    sync::Semaphore,
    time::sleep,
};

use self::{
    hosts::Hosts,
    request::Model,
    routes::{App, router},
    scheduler::Scheduler,
    training::Training,
};
use crate::{
    args::{Common, Serve},
    interrupt::{self, Interrupted},
    model, output,
};

/// The port without one in --listen.
const PORT: u16 = 8000;

/// The most connections at a time; others wait.
const CONNECTIONS: usize = 1024;

/// The longest time between the start of a connection, or an answer, and the end of the next request's headers.
const PATIENCE: Duration = Duration::from_secs(30);

/// The most bytes of the head of a request: a drawing of 100,000 pixels.
const HEAD: usize = 1 << 16;

pub(crate) fn run(options: &Serve, common: &Common) -> Result<()> {
    let training = options.run.as_deref().map(Training::new).transpose()?.map(Arc::new);
    let denoiser = Arc::new(model::load(&options.model, &common.device.open()?)?);
    let sha256 = denoiser.sha256()?;
    interrupt::listen()?;
    let runtime =
        runtime::Builder::new_current_thread().enable_all().build().context("cannot start the server")?;
    let served = runtime.block_on(async {
        let (name, listener) = listen(&options.listen).await?;
        let address = listener.local_addr()?;
        let hosts = Hosts::new(&name, address.ip(), address.port());
        let url = format!("http://{}/", hosts.shown());
        if !address.ip().is_loopback() {
            output::warning(&format!("other machines can reach {address}, and there is no password"));
        }
        output::result(common, &json!({ "url": url, "model": options.model }), &url)?;
        let model = Model { name: options.model.clone(), denoiser, sha256 };
        let scheduler = Scheduler::start()?;
        let app = App { model, training, common: common.clone(), scheduler, hosts };
        tokio::select! {
            result = serve(listener, Arc::new(app)) => result,
            interrupted = interrupted() => Err(interrupted.into()),
        }
    });
    // Connections end here, and with them the runs; the scheduler's thread ends with the program.
    runtime.shutdown_background();
    served
}

/// Opens the address of --listen, and returns the name of its host.
async fn listen(text: &str) -> Result<(String, TcpListener)> {
    let has_port = text.rsplit_once(':').is_some_and(|(host, _)| !host.contains(':') || host.ends_with(']'));
    let full = match (has_port, text.contains(':') && !text.starts_with('[')) {
        (true, _) => text.to_owned(),
        (false, true) => format!("[{text}]:{PORT}"),
        (false, false) => format!("{text}:{PORT}"),
    };
    let addresses: Vec<SocketAddr> = full
        .to_socket_addrs()
        .with_context(|| format!("--listen {text}: expected HOST or HOST:PORT, such as 127.0.0.1:{PORT}"))?
        .collect();
    let Some(address) = addresses.first() else { bail!("--listen {text}: the host has no address") };
    let listener = TcpListener::bind(address).await.with_context(|| match address.port() {
        0 => format!("cannot listen at {address}"),
        port => format!("cannot listen at {address}; port 0 takes another one than {port}"),
    })?;
    let host = full.rsplit_once(':').map_or(full.as_str(), |(host, _)| host);
    Ok((host.to_owned(), listener))
}

/// Accepts connections until accepting fails for good.
async fn serve(listener: TcpListener, app: Arc<App>) -> Result<()> {
    let service = TowerToHyperService::new(router(app));
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let place = connections.clone().acquire_owned().await?;
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            // Such as too many open files: other connections will end.
            Err(error) => {
                output::warning(&format!("cannot accept a connection: {error}"));
                sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        let service = service.clone();
        tokio::spawn(async move {
            // A client that breaks the protocol or goes away is not reported.
            drop(answer(stream, service).await);
            drop(place);
        });
    }
}

async fn answer(stream: TcpStream, service: TowerToHyperService<axum::Router>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(PATIENCE).max_buf_size(HEAD);
    server.serve_connection(TokioIo::new(stream), service).await.map_err(io::Error::other)
}

/// Waits for a signal.
async fn interrupted() -> Interrupted {
    loop {
        if let Err(interrupted) = interrupt::check() {
            return interrupted;
        }
        sleep(Duration::from_millis(50)).await;
    }
}
