//! A raw HTTP client over a socket, for tests that behave as people and as attackers, and for the bench.
//! Knows bytes and forms; makes no claim about what an answer should be.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// What came back.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(other, _)| other == name).map_or("", |(_, value)| value)
    }

    /// The value of the first hidden field of this name.
    pub fn field(&self, name: &str) -> String {
        value_of(&self.body, name).unwrap_or_else(|| panic!("no field {name} in {}", self.body))
    }
}

pub fn value_of(html: &str, name: &str) -> Option<String> {
    let rest = html.split_once(&format!("name=\"{name}\" value=\""))?.1;
    Some(rest.split_once('"')?.0.to_owned())
}

/// Somebody with cookies and one connection that stays open.
pub struct Client {
    address: SocketAddr,
    stream: Option<TcpStream>,
    pub cookies: HashMap<String, String>,
    pub headers: Vec<(String, String)>,
}

impl Client {
    pub fn new(address: SocketAddr) -> Self {
        Self { address, stream: None, cookies: HashMap::new(), headers: Vec::new() }
    }

    pub fn get(&mut self, path: &str) -> Answer {
        self.ask("GET", path, "").unwrap_or_else(|error| panic!("GET {path}: {error}"))
    }

    pub fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> Answer {
        self.try_post(path, fields).unwrap_or_else(|error| panic!("POST {path}: {error}"))
    }

    pub fn try_post(&mut self, path: &str, fields: &[(&str, &str)]) -> std::io::Result<Answer> {
        let pairs: Vec<String> =
            fields.iter().map(|(name, value)| format!("{}={}", escaped(name), escaped(value))).collect();
        self.ask("POST", path, &pairs.join("&"))
    }

    pub fn ask(&mut self, method: &str, path: &str, body: &str) -> std::io::Result<Answer> {
        let is_new = self.stream.is_none();
        let answer = self.ask_once(method, path, body);
        match answer {
            // The server closed a connection that had been idle.
            Err(_) if !is_new => self.ask_once(method, path, body),
            other => other,
        }
    }

    fn ask_once(&mut self, method: &str, path: &str, body: &str) -> std::io::Result<Answer> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => TcpStream::connect(self.address)?,
        };
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        stream.set_nodelay(true)?;
        let mut head = format!("{method} {path} HTTP/1.1\r\n");
        if !self.headers.iter().any(|(name, _)| name == "Host") {
            head += &format!("Host: {}\r\n", self.address);
        }
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        if !self.cookies.is_empty() {
            let cookies: Vec<String> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
            head += &format!("Cookie: {}\r\n", cookies.join("; "));
        }
        if method == "POST" {
            head += &format!("Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n", body.len());
        }
        stream.write_all(format!("{head}\r\n{body}").as_bytes())?;
        let answer = read_answer(&mut stream)?;
        for (_, value) in answer.headers.iter().filter(|(name, _)| name == "set-cookie") {
            let (name, value) = value.split(';').next().and_then(|pair| pair.split_once('=')).unwrap_or_default();
            self.cookies.insert(name.to_owned(), value.to_owned());
        }
        if answer.header("connection") != "close" {
            self.stream = Some(stream);
        }
        Ok(answer)
    }

    /// Comes in under a name.
    pub fn join(&mut self, name: &str) -> Answer {
        let joined = self.post("/join", &[("name", name), ("consent", "yes")]);
        assert_eq!((joined.status, joined.header("location")), (303, "/"), "{}", joined.body);
        self.get("/")
    }
}

fn read_answer(stream: &mut TcpStream) -> std::io::Result<Answer> {
    let closed = || std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
    let mut bytes = Vec::new();
    let mut buffer = [0u8; 16 << 10];
    loop {
        if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..at]).into_owned();
            let mut lines = head.lines();
            let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).ok_or_else(closed)?;
            let headers: Vec<(String, String)> = lines
                .filter_map(|line| line.split_once(": "))
                .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
                .collect();
            let length = headers.iter().find(|(name, _)| name == "content-length");
            let length: usize = length.and_then(|(_, value)| value.parse().ok()).unwrap_or(0);
            while bytes.len() < at + 4 + length {
                match stream.read(&mut buffer)? {
                    0 => return Err(closed()),
                    num_bytes => bytes.extend(&buffer[..num_bytes]),
                }
            }
            let body = String::from_utf8_lossy(&bytes[at + 4..at + 4 + length]).into_owned();
            return Ok(Answer { status, headers, body });
        }
        match stream.read(&mut buffer)? {
            0 => return Err(closed()),
            num_bytes => bytes.extend(&buffer[..num_bytes]),
        }
    }
}

pub fn escaped(text: &str) -> String {
    let byte = |byte: u8| match byte.is_ascii_alphanumeric() {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}
