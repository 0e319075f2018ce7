import io.debezium.engine.ChangeEvent;
import io.debezium.engine.DebeziumEngine;
import io.debezium.engine.format.Json;
import java.io.FileOutputStream;
import java.io.ObjectOutputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;

/**
 * Prints the events that Debezium's embedded engine makes of a server's binlog from its start, three lines each: the topic, the key, the value (empty for
 * a tombstone). Ends after so many values of the table's topic.
 *
 * usage: Events PORT USER PASSWORD TABLE VALUES SCHEMAS(true|false) GTIDS (one transaction before the first that is wanted)
 */
public class Events {
  public static void main(String[] args) throws Exception {
    String table = args[3];
    CountDownLatch rows = new CountDownLatch(Integer.parseInt(args[4]));
    Path folder = Files.createTempDirectory("debezium");
    Properties p = new Properties();
    Map.ofEntries(
        Map.entry("name", "sample"),
        Map.entry("connector.class", "io.debezium.connector.mysql.MySqlConnector"),
        Map.entry("database.hostname", "127.0.0.1"),
        Map.entry("database.port", args[0]),
        Map.entry("database.user", args[1]),
        Map.entry("database.password", args[2]),
        Map.entry("database.ssl.mode", "disabled"),
        Map.entry("driver.allowPublicKeyRetrieval", "true"),
        Map.entry("database.server.id", "5401"),
        Map.entry("topic.prefix", "binlake"),
        Map.entry("table.include.list", table),
        Map.entry("provide.transaction.metadata", "true"),
        Map.entry("snapshot.mode", "recovery"),
        Map.entry("offset.storage", "org.apache.kafka.connect.storage.FileOffsetBackingStore"),
        Map.entry("offset.storage.file.filename", folder.resolve("offsets").toString()),
        Map.entry("offset.flush.interval.ms", "10000"),
        Map.entry("schema.history.internal", "io.debezium.storage.file.history.FileSchemaHistory"),
        Map.entry("schema.history.internal.file.filename", folder.resolve("history").toString()),
        Map.entry("converter.schemas.enable", args[5]),
        Map.entry("poll.interval.ms", "5"))
        .forEach(p::setProperty);
    Map<byte[], byte[]> offset = new HashMap<>();
    offset.put(bytes("[\"sample\",{\"server\":\"binlake\"}]"), bytes("{\"file\":\"binlog.000001\",\"pos\":4,\"gtids\":\"" + args[6] + "\"}"));
    try (var file = new ObjectOutputStream(new FileOutputStream(folder.resolve("offsets").toFile()))) {
      file.writeObject(offset);
    }
    PrintStream out = new PrintStream(System.out, false, StandardCharsets.UTF_8);
    String topic = "binlake." + table;
    DebeziumEngine<?> engine = DebeziumEngine.create(Json.class).using(p)
        .using((success, message, error) -> {
          if (!success) {
            System.err.println(message);
            if (error != null) error.printStackTrace();
            Runtime.getRuntime().halt(1);
          }
        })
        .notifying((events, committer) -> {
          for (ChangeEvent<String, String> event : events) {
            out.println(event.destination());
            out.println(event.key() == null ? "" : event.key());
            out.println(event.value() == null ? "" : event.value());
            if (topic.equals(event.destination()) && event.value() != null) rows.countDown();
            committer.markProcessed(event);
          }
          committer.markBatchFinished();
          out.flush();
        }).build();
    Executors.newSingleThreadExecutor().submit(engine);
    boolean ended = rows.await(120, TimeUnit.SECONDS);
    // the end of the last transaction comes behind its rows
    Thread.sleep(1500);
    out.flush();
    Runtime.getRuntime().halt(ended ? 0 : 1);
  }

  static byte[] bytes(String text) {
    return text.getBytes(StandardCharsets.UTF_8);
  }
}
