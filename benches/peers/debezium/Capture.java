import io.debezium.engine.ChangeEvent;
import io.debezium.engine.DebeziumEngine;
import io.debezium.engine.format.Json;
import java.io.FileOutputStream;
import java.io.ObjectOutputStream;
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
 * Debezium's embedded engine reads a server's binlog from its start; events become JSON and are dropped. Prints rows and the seconds from the first
 * to the last row, so the start of the JVM and the connector is left out.
 *
 * usage: Capture PORT USER PASSWORD TABLE ROWS
 */
public class Capture {
  static long rows, first, last;

  public static void main(String[] args) throws Exception {
    String table = args[3];
    long expected = Long.parseLong(args[4]);
    Path folder = Files.createTempDirectory("debezium");
    Properties p = new Properties();
    Map.ofEntries(
        Map.entry("name", "peer"),
        Map.entry("connector.class", "io.debezium.connector.mysql.MySqlConnector"),
        Map.entry("database.hostname", "127.0.0.1"),
        Map.entry("database.port", args[0]),
        Map.entry("database.user", args[1]),
        Map.entry("database.password", args[2]),
        Map.entry("database.ssl.mode", "disabled"),
        Map.entry("driver.allowPublicKeyRetrieval", "true"),
        Map.entry("database.server.id", "5400"),
        Map.entry("topic.prefix", "peer"),
        Map.entry("table.include.list", table),
        // The schema from the live tables and an offset at the first event: the whole binlog, and no rows of a snapshot.
        Map.entry("snapshot.mode", "recovery"),
        Map.entry("offset.storage", "org.apache.kafka.connect.storage.FileOffsetBackingStore"),
        Map.entry("offset.storage.file.filename", folder.resolve("offsets").toString()),
        Map.entry("offset.flush.interval.ms", "10000"),
        Map.entry("schema.history.internal", "io.debezium.storage.file.history.FileSchemaHistory"),
        Map.entry("schema.history.internal.file.filename", folder.resolve("history").toString()),
        Map.entry("converter.schemas.enable", "false"),
        Map.entry("key.converter.schemas.enable", "false"),
        Map.entry("value.converter.schemas.enable", "false"),
        // The settings that were fastest.
        Map.entry("max.batch.size", "8192"),
        Map.entry("max.queue.size", "65536"),
        Map.entry("poll.interval.ms", "5"),
        Map.entry("record.processing.threads", "AVAILABLE_CORES"),
        Map.entry("record.processing.order", "ORDERED"))
        .forEach(p::setProperty);
    Map<byte[], byte[]> offset = new HashMap<>();
    offset.put(bytes("[\"peer\",{\"server\":\"peer\"}]"), bytes("{\"file\":\"binlog.000001\",\"pos\":4}"));
    try (var file = new ObjectOutputStream(new FileOutputStream(folder.resolve("offsets").toFile()))) {
      file.writeObject(offset);
    }
    CountDownLatch done = new CountDownLatch(1);
    String topic = "peer." + table;
    DebeziumEngine<?> engine = DebeziumEngine.create(Json.class).using(p)
        .using((success, message, error) -> {
          if (!success) error.printStackTrace();
          done.countDown();
        })
        .notifying((events, committer) -> {
          for (ChangeEvent<String, String> event : events) {
            // A deleted row comes twice: the second has no value.
            if (topic.equals(event.destination()) && event.value() != null) {
              if (rows++ == 0) first = System.nanoTime();
              if (rows == expected) { last = System.nanoTime(); done.countDown(); }
            }
            committer.markProcessed(event);
          }
          committer.markBatchFinished();
        }).build();
    Executors.newSingleThreadExecutor().submit(engine);
    boolean ended = done.await(600, TimeUnit.SECONDS);
    System.out.printf("%d %.3f%n", rows, (last - first) / 1e9);
    Runtime.getRuntime().halt(ended && rows == expected ? 0 : 1);
  }

  static byte[] bytes(String text) {
    return text.getBytes(StandardCharsets.UTF_8);
  }
}
