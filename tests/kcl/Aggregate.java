import com.amazonaws.kinesis.agg.AggRecord;
import com.amazonaws.kinesis.agg.RecordAggregator;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.util.Base64;

/** Packs records as the Kinesis producer library does: lines of partition key, explicit hash key and base64 data in, base64 of aggregated records out. */
public class Aggregate {
  public static void main(String[] arguments) throws Exception {
    RecordAggregator aggregator = new RecordAggregator();
    BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
    for (String line = lines.readLine(); line != null; line = lines.readLine()) {
      String[] fields = line.split("\t", -1);
      print(aggregator.addUserRecord(fields[0], fields[1], Base64.getDecoder().decode(fields[2])));
    }
    print(aggregator.clearAndGet());
  }

  private static void print(AggRecord full) {
    if (full != null) System.out.println(Base64.getEncoder().encodeToString(full.toRecordBytes()));
  }
}
