import java.net.URI;
import java.time.Duration;
import java.util.List;
import software.amazon.awssdk.auth.credentials.AwsBasicCredentials;
import software.amazon.awssdk.auth.credentials.StaticCredentialsProvider;
import software.amazon.awssdk.regions.Region;
import software.amazon.awssdk.services.dynamodb.DynamoDbAsyncClient;
import software.amazon.kinesis.leases.Lease;
import software.amazon.kinesis.leases.dynamodb.DynamoDBLeaseRefresher;
import software.amazon.kinesis.leases.dynamodb.DynamoDBLeaseSerializer;
import software.amazon.kinesis.leases.dynamodb.TableCreatorCallback;

/** The Kinesis Client Library's own code at a lease table: list it, take a lease of it, renew one as it was read before. */
public class Leases {
  public static void main(String[] arguments) throws Exception {
    String endpoint = arguments[0], table = arguments[1], command = arguments[2];
    DynamoDbAsyncClient client = DynamoDbAsyncClient.builder()
        .credentialsProvider(StaticCredentialsProvider.create(AwsBasicCredentials.create("test", "test")))
        .region(Region.US_EAST_1).endpointOverride(URI.create(endpoint)).build();
    DynamoDBLeaseRefresher leases = new DynamoDBLeaseRefresher(table, client, new DynamoDBLeaseSerializer(), true,
        TableCreatorCallback.NOOP_TABLE_CREATOR_CALLBACK);
    switch (command) {
      case "list":
        for (Lease lease : leases.listLeases()) {
          System.out.println(String.join("\t", lease.leaseKey(), String.valueOf(lease.leaseOwner()), String.valueOf(lease.leaseCounter()),
              String.valueOf(lease.ownerSwitchesSinceCheckpoint()), lease.checkpoint().sequenceNumber()));
        }
        break;
      case "take":
        Lease wanted = leases.getLease(arguments[3]);
        System.out.println(leases.takeLease(wanted, arguments[4]) + "\t" + wanted.leaseCounter());
        break;
      case "renew":
        // as it was read when its counter was this
        Lease held = leases.getLease(arguments[3]);
        held.leaseCounter(Long.parseLong(arguments[5]));
        held.leaseOwner(arguments[4]);
        System.out.println(leases.renewLease(held) + "\t" + held.leaseCounter());
        break;
      default:
        throw new IllegalArgumentException(command);
    }
    System.exit(0);
  }
}
