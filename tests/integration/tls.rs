//! The way to the source: encrypted or not, with whose certificate, by which way of logging in.

use crate::mysql::{Flavour, Options, Server};
use crate::service::{Answer, Pipeline};
use binlake::source::{BinlogConnection, DumpSettings, ServerInfo, connect, connection_options};
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;
use url::Url;

/// Runs openssl in a folder.
fn openssl(folder: &Path, arguments: &str) {
    let output = Command::new("openssl").args(arguments.split(' ')).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// `ca.pem` and a certificate of it for 127.0.0.1, `server.pem` and `server.key`; `other.pem`, an authority that signed nothing.
fn certificates() -> TempDir {
    let folder = tempfile::Builder::new().prefix("binlake-tls-").tempdir().unwrap();
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    for authority in ["ca", "other"] {
        openssl(
            folder.path(),
            &format!(
                "req -x509 {key} -keyout {authority}.key -out {authority}.pem -days 30 -subj /CN={authority} -addext keyUsage=keyCertSign"
            ),
        );
    }
    std::fs::write(folder.path().join("names"), "subjectAltName=IP:127.0.0.1").unwrap();
    openssl(folder.path(), &format!("req -new {key} -keyout server.key -out server.csr -subj /CN=server"));
    openssl(
        folder.path(),
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -extfile names -out server.pem",
    );
    folder
}

fn server_with(folder: &Path, flavour: Flavour) -> Server {
    let file = |name: &str| folder.join(name).display().to_string();
    let mut options = Options { flavour, ..Options::default() }
        .with(format!("--ssl-ca={}", file("ca.pem")))
        .with(format!("--ssl-cert={}", file("server.pem")))
        .with(format!("--ssl-key={}", file("server.key")));
    if flavour == Flavour::MariaDb {
        options = options.with("--ssl");
    }
    Server::start(options)
}

/// What `binlake run` says when it must end by itself.
fn refusal(url: &str) -> Answer {
    let answer = Pipeline::with_source(url, "", "[[table]]\nsource = \"shop.*\"\n").answer(&["run", "--log-level", "off"]);
    assert_eq!(answer.err.lines().count(), 1, "{}", answer.err);
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_mode_trusts_whom_it_should() {
    let folder = certificates();
    let authority = |name: &str| folder.path().join(name).display().to_string();
    for flavour in [Flavour::MySql, Flavour::MariaDb] {
        let server = server_with(folder.path(), flavour);
        server.create_repl_user().await;
        let mut root = server.client().await;
        root.run("CREATE USER secure@'%' IDENTIFIED BY 'secret' REQUIRE SSL").await;
        root.run("GRANT SELECT, RELOAD, LOCK TABLES, SHOW DATABASES, REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO secure@'%'")
            .await;
        if flavour == Flavour::MariaDb {
            root.run("GRANT BINLOG MONITOR ON *.* TO secure@'%'").await;
        }
        root.run_all("CREATE DATABASE shop;\nCREATE TABLE shop.t (id INT PRIMARY KEY);\nINSERT INTO shop.t VALUES (1)").await;
        let secure = server.repl_url().replace("repl:", "secure:");
        let by_name = secure.replace("127.0.0.1", "localhost");

        let good = [
            format!("{}/?ssl-mode=disabled", server.repl_url()),
            format!("{secure}/?ssl-mode=required"),
            format!("{secure}/?ssl-mode=verify_ca&ssl-ca={}", authority("ca.pem")),
            format!("{by_name}/?ssl-mode=verify_ca&ssl-ca={}", authority("ca.pem")),
            format!("{secure}/?ssl-mode=verify_identity&ssl-ca={}", authority("ca.pem")),
        ];
        for (i, url) in good.iter().enumerate() {
            let pipeline = Pipeline::with_source(url, "", "[[table]]\nsource = \"shop.*\"\n");
            let service = pipeline.run();
            pipeline.catches_up(&server, "shop", "t").await;
            root.run(&format!("INSERT INTO shop.t VALUES ({})", i + 10)).await;
            pipeline.catches_up(&server, "shop", "t").await;
            assert!(service.terminate().success(), "{url}: {}", pipeline.log_tail());
            pipeline.assert_calm_log();
        }
        // relative to the configuration's folder
        let relative = Pipeline::with_source(
            &format!("{secure}/?ssl-mode=verify_ca&ssl-ca=authority.pem"),
            "",
            "[[table]]\nsource = \"shop.*\"\n",
        );
        std::fs::copy(authority("ca.pem"), relative.path().join("authority.pem")).unwrap();
        relative.ok(&["backfill"]);

        for (url, code, words) in [
            // the user may not come without TLS
            (secure.clone(), 3, "Access denied"),
            (format!("{secure}/?ssl-mode=disabled"), 3, "Access denied"),
            (format!("{secure}/?ssl-mode=verify_ca&ssl-ca={}", authority("other.pem")), 3, "ssl-ca"),
            (format!("{secure}/?ssl-mode=verify_ca"), 3, "ssl-ca"),
            (format!("{by_name}/?ssl-mode=verify_identity&ssl-ca={}", authority("ca.pem")), 3, "ssl-mode=verify_ca accepts it"),
            (format!("{secure}/?ssl-mode=verify_ca&ssl-ca={}", authority("none.pem")), 2, "none.pem"),
            (format!("{secure}/?ssl-mode=preferred"), 2, "verify_identity"),
        ] {
            let answer = refusal(&url);
            assert_eq!(answer.code, code, "{url}: {}", answer.err);
            assert!(answer.err.contains(words), "{url}: {}", answer.err);
            assert!(!answer.err.contains("secret"), "a password is never shown: {}", answer.err);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_tls_is_refused_where_tls_is_asked_for() {
    let server = Server::start(Options::mariadb());
    server.create_repl_user().await;
    let answer = refusal(&format!("{}/?ssl-mode=required", server.repl_url()));
    assert!(answer.code == 3 && answer.err.contains("ssl-mode=disabled"), "{} {}", answer.code, answer.err);
}

/// The binlog connection logs in by itself: with the password known to the server's cache and not, over TLS and without.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passwords_of_every_kind() {
    let folder = certificates();
    let timeout = Duration::from_secs(60);
    let settings = DumpSettings {
        server_id: DumpSettings::random_server_id(),
        connect_timeout: timeout,
        read_timeout: timeout,
        heartbeat_interval: Duration::from_millis(500),
    };
    for flavour in [Flavour::MySql, Flavour::MariaDb] {
        let server = server_with(folder.path(), flavour);
        server.create_repl_user().await;
        let mut root = server.client().await;
        let plugin = root.value("SELECT plugin FROM mysql.user WHERE user = 'repl'").await;
        let expected = if flavour == Flavour::MySql { "caching_sha2_password" } else { "mysql_native_password" };
        assert_eq!(plugin, expected);
        root.run("CREATE USER odd@'%' IDENTIFIED BY 'p@ss:w/ö rd%'").await;
        root.run("GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO odd@'%'").await;
        root.run("CREATE USER bare@'%' IDENTIFIED BY ''").await;
        root.run("GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO bare@'%'").await;
        let port = Url::parse(&server.repl_url()).unwrap().port().unwrap();
        for user in ["repl:secret", "odd:p%40ss%3Aw%2F%C3%B6%20rd%25", "bare"] {
            for mode in ["disabled", "required"] {
                let url = Url::parse(&format!("mysql://{user}@127.0.0.1:{port}/?ssl-mode={mode}")).unwrap();
                let options = connection_options(&url).unwrap();
                let mut conn =
                    connect(&connection_options(&Url::parse(&server.root_url()).unwrap()).unwrap(), timeout).await.unwrap();
                let info = ServerInfo::read(&mut conn).await.unwrap();
                let position = info.read_position(&mut conn).await.unwrap();
                // forgets all passwords that the server has seen
                root.run("FLUSH PRIVILEGES").await;
                for _ in 0..2 {
                    BinlogConnection::open(&options, &info, &position, &settings)
                        .await
                        .unwrap_or_else(|e| panic!("{user} {mode}: {e}"));
                }
            }
        }
    }
}
