//! nginx, if it is installed: one process, with as few features as possible.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use testing::Folder;
use testing::process::free_address;

use super::{CONTENT_TYPE, TARGET, body};
use crate::server::{Process, pinned};

/// Maximum number of bytes of a body that is written into the configuration; a longer body is a
/// file.
const TEXT_BYTES_MAX: usize = 1024;

pub(super) fn is_installed() -> bool {
    Command::new("nginx").arg("-v").stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// Starts nginx with its configuration, and the file that it serves, in a folder that is removed
/// with it.
pub(crate) fn start(body_bytes: usize) -> Process {
    let (address, folder) = (free_address([127, 0, 0, 1]), Folder::new("nginx"));
    let body = body(body_bytes);
    folder.write(TARGET.trim_start_matches('/'), &body);
    let file = folder.write("nginx.conf", configuration(&folder, address, &body));
    let mut command = pinned(Path::new("nginx"));
    command.arg("-p").arg(&*folder).arg("-c").arg(file).args(["-e", "stderr"]);
    Process::start_program(&mut command, address, folder)
}

fn configuration(folder: &Path, address: SocketAddr, body: &str) -> String {
    let folder = folder.display();
    let answer = if body.len() > TEXT_BYTES_MAX { format!("root {folder};") } else { format!("return 200 {body};") };
    let backlog = sealed::Config::default().backlog;
    format!(
        "daemon off; master_process off; pid {folder}/pid; error_log stderr crit;
        events {{ worker_connections 20000; }}
        http {{
            access_log off; sendfile on; open_file_cache max=16; default_type {CONTENT_TYPE};
            keepalive_timeout 75s; keepalive_requests 1000000000;
            client_body_temp_path {folder}/client; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
            uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
            server {{ listen {address} backlog={backlog}; location / {{ {answer} }} }}
        }}
        "
    )
}
