//! A proxy on loopback with a name server of its own, origins that record what they are sent, and a client that speaks raw bytes.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use hickory_resolver::{
    config::{ConnectionConfig, NameServerConfig, ResolverConfig},
    proto::{
        op::{Message, ResponseCode},
        rr::{Name, RData, Record, RecordType},
    },
};
use selextract_egress_proxy::{
    dial::{Dialler, Limits},
    metrics::Metrics,
    policy::Policy,
    proxy::Proxy,
    resolve::Resolver,
    server::{Server, ServerLimits},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::watch,
    task::JoinHandle,
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Longer than anything here takes.
pub const LONG: Duration = Duration::from_secs(10);

/// Generous limits.
pub const LIMITS: Limits = Limits {
    connect: Duration::from_secs(5),
    idle: Duration::from_secs(5),
    total: Duration::from_secs(20),
    max_bytes: 10_000_000,
};

/// A running proxy.
pub struct Rig {
    /// Where it listens.
    pub address: SocketAddr,
    /// Where it listens for those who name a pool.
    pub pools: SocketAddr,
    /// What it counted.
    pub metrics: Arc<Metrics>,
    /// Stops it.
    pub stop: CancellationToken,
    /// Ends when it has drained.
    pub server: JoinHandle<()>,
}

impl Rig {
    /// With generous limits.
    pub async fn start(policy: &str, zone: &[(&str, &[&str])]) -> Self {
        Self::start_with(policy, zone, LIMITS, 100).await
    }

    /// With these limits.
    pub async fn start_with(policy: &str, zone: &[(&str, &[&str])], limits: Limits, max_connections: usize) -> Self {
        Self::start_resolving(policy, resolver(zone).await, limits, max_connections).await
    }

    /// With this resolver.
    pub async fn start_resolving(policy: &str, resolver: Resolver, limits: Limits, max_connections: usize) -> Self {
        let metrics = Arc::new(Metrics::new().unwrap());
        let policy = watch::Sender::new(Arc::new(Policy::parse(policy.as_bytes()).unwrap())).subscribe();
        let tasks = TaskTracker::new();
        let dialler = Dialler::new(resolver, policy, metrics.clone(), limits);
        let direct = Proxy::new(dialler, metrics.clone(), tasks.clone());
        let of_pools = direct.for_pools();
        let server = |proxy| Server {
            proxy: Arc::new(proxy),
            metrics: metrics.clone(),
            tasks: tasks.clone(),
            limits: ServerLimits {
                max_connections,
                idle: limits.idle,
                settle: Duration::from_millis(300),
                drain: Duration::from_secs(2),
            },
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let pools_listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let pools = pools_listener.local_addr().unwrap();
        tokio::spawn(server(of_pools).run(pools_listener, stop.clone()));
        let server = tokio::spawn(server(direct).run(listener, stop.clone()));
        Self {
            address,
            pools,
            metrics,
            stop,
            server,
        }
    }

    /// A connection to it.
    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends the bytes and reads until the proxy closes.
    pub async fn exchange(&self, request: &str) -> String {
        self.exchange_at(self.address, request).await
    }

    /// The same at another listener.
    pub async fn exchange_at(&self, address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        read_to_end(&mut stream).await
    }

    /// GET of the URL; the whole answer.
    pub async fn get(&self, url: &str) -> String {
        self.exchange(&format!(
            "GET {url} HTTP/1.1\r\nhost: ignored\r\nconnection: close\r\n\r\n"
        ))
        .await
    }

    /// Opens a tunnel; the stream, and the head of the answer.
    pub async fn tunnel(&self, authority: &str) -> (TcpStream, String) {
        let mut stream = self.connect().await;
        let request = format!("CONNECT {authority} HTTP/1.1\r\nhost: {authority}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let head = read_head(&mut stream).await;
        (stream, head)
    }

    /// The value of a metric.
    pub fn metric(&self, name: &str) -> u64 {
        let text = self.metrics.render();
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().parse().unwrap()
    }

    /// Waits until a metric has the value.
    pub async fn until_metric(&self, name: &str, value: u64) {
        timeout(LONG, async {
            while self.metric(name) != value {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await
        .unwrap();
    }
}

/// Reads until the other side closes.
pub async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    // A reset after the answer is how a side that was sent too much closes.
    let _ = timeout(LONG, stream.read_to_end(&mut bytes)).await.unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Reads to the end of a message's head.
pub async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    timeout(LONG, async {
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => break,
            }
        }
    })
    .await
    .unwrap();
    String::from_utf8(head).unwrap()
}

/// An origin on loopback that answers each connection with fixed bytes and keeps what it was sent.
pub struct Origin {
    /// Where it listens.
    pub address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Origin {
    /// Answers once a head has come, then closes.
    pub async fn answering(response: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = requests.clone();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let seen = seen.clone();
                tokio::spawn(async move {
                    let mut request = read_head(&mut stream).await;
                    // What follows the head in the same moment belongs to the record too.
                    let mut rest = [0; 4096];
                    if let Ok(Ok(more)) = timeout(Duration::from_millis(100), stream.read(&mut rest)).await {
                        request.push_str(&String::from_utf8_lossy(&rest[..more]));
                    }
                    seen.lock().unwrap().push(request);
                    stream.write_all(response.as_bytes()).await.unwrap();
                });
            }
        });
        Self { address, requests }
    }

    /// A policy that opens this origin on loopback.
    pub fn policy(&self) -> String {
        open_loopback(self.address.port())
    }

    /// What was sent so far.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

/// A policy that opens one port of loopback.
pub fn open_loopback(port: u16) -> String {
    format!(r#"{{"allow":[{{"cidr":"127.0.0.0/8","ports":[{port}]}}]}}"#)
}

/// Answers from the zone over UDP; what is not in it does not exist.
async fn resolver(zone: &[(&str, &[&str])]) -> Resolver {
    let zone: HashMap<Name, Vec<IpAddr>> = zone
        .iter()
        .map(|(name, addresses)| {
            let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
            (Name::from_ascii(name).unwrap(), addresses)
        })
        .collect();
    name_server(move |query| answer(&zone, query)).await
}

/// Answers every name with these addresses in turn, none of which may be kept; the last one stays.
pub async fn rebinding(addresses: &[&str], asked: Arc<AtomicUsize>) -> Resolver {
    let addresses: Vec<Ipv4Addr> = addresses.iter().map(|address| address.parse().unwrap()).collect();
    name_server(move |query| {
        let question = query.queries[0].clone();
        let mut response = query.into_response();
        if question.query_type() == RecordType::A {
            let turn = asked.fetch_add(1, Ordering::Relaxed).min(addresses.len() - 1);
            let data = RData::A(addresses[turn].into());
            response.add_answer(Record::from_rdata(question.name().clone(), 0, data));
        }
        response
    })
    .await
}

async fn name_server(mut answers: impl FnMut(Message) -> Message + Send + 'static) -> Resolver {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let port = socket.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut buffer = [0; 2048];
        loop {
            let (length, peer) = socket.recv_from(&mut buffer).await.unwrap();
            let answer = answers(Message::from_vec(&buffer[..length]).unwrap());
            socket.send_to(&answer.to_vec().unwrap(), peer).await.unwrap();
        }
    });
    let mut connection = ConnectionConfig::udp();
    connection.port = port;
    let server = NameServerConfig::new("127.0.0.1".parse().unwrap(), true, vec![connection]);
    let search = ["demo.svc.cluster.local.", "svc.cluster.local.", "cluster.local."]
        .map(|domain| Name::from_ascii(domain).unwrap())
        .to_vec();
    Resolver::from_config(ResolverConfig::from_parts(None, search, vec![server]), 5).unwrap()
}

fn answer(zone: &HashMap<Name, Vec<IpAddr>>, query: Message) -> Message {
    let question = query.queries[0].clone();
    let mut response = query.into_response();
    let name = Name::from_ascii(question.name().to_ascii().to_ascii_lowercase()).unwrap();
    let Some(addresses) = zone.get(&name) else {
        response.metadata.response_code = ResponseCode::NXDomain;
        return response;
    };
    for address in addresses {
        let (kind, data) = match address {
            IpAddr::V4(v4) => (RecordType::A, RData::A((*v4).into())),
            IpAddr::V6(v6) => (RecordType::AAAA, RData::AAAA((*v6).into())),
        };
        if kind == question.query_type() {
            response.add_answer(Record::from_rdata(question.name().clone(), 30, data));
        }
    }
    response
}
