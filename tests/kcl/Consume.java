import java.net.URI;
import java.util.Base64;
import java.util.concurrent.TimeUnit;
import software.amazon.awssdk.auth.credentials.AwsBasicCredentials;
import software.amazon.awssdk.auth.credentials.AwsCredentialsProvider;
import software.amazon.awssdk.auth.credentials.StaticCredentialsProvider;
import software.amazon.awssdk.http.Protocol;
import software.amazon.awssdk.http.nio.netty.NettyNioAsyncHttpClient;
import software.amazon.awssdk.regions.Region;
import software.amazon.awssdk.services.cloudwatch.CloudWatchAsyncClient;
import software.amazon.awssdk.services.dynamodb.DynamoDbAsyncClient;
import software.amazon.awssdk.services.kinesis.KinesisAsyncClient;
import software.amazon.kinesis.common.ConfigsBuilder;
import software.amazon.kinesis.common.InitialPositionInStream;
import software.amazon.kinesis.common.InitialPositionInStreamExtended;
import software.amazon.kinesis.coordinator.Scheduler;
import software.amazon.kinesis.lifecycle.events.InitializationInput;
import software.amazon.kinesis.lifecycle.events.LeaseLostInput;
import software.amazon.kinesis.lifecycle.events.ProcessRecordsInput;
import software.amazon.kinesis.lifecycle.events.ShardEndedInput;
import software.amazon.kinesis.lifecycle.events.ShutdownRequestedInput;
import software.amazon.kinesis.metrics.MetricsLevel;
import software.amazon.kinesis.metrics.NullMetricsFactory;
import software.amazon.kinesis.processor.ShardRecordProcessor;
import software.amazon.kinesis.retrieval.KinesisClientRecord;
import software.amazon.kinesis.retrieval.polling.PollingConfig;

/**
 * A consumer as its users write them: prints each user record of a stream as it comes, until its standard input ends. A line has the
 * shard, whether the record was aggregated, its explicit hash key or partition key, and its data in base64.
 */
public class Consume {
  public static void main(String[] arguments) throws Exception {
    String kinesisEndpoint = arguments[0], dynamoEndpoint = arguments[1], stream = arguments[2];
    AwsCredentialsProvider credentials = StaticCredentialsProvider.create(AwsBasicCredentials.create("test", "test"));
    Region region = Region.US_EAST_1;
    // HTTP/1.1: the stand-in's plain port knows no other
    KinesisAsyncClient kinesis = KinesisAsyncClient.builder().credentialsProvider(credentials).region(region)
        .endpointOverride(URI.create(kinesisEndpoint)).httpClientBuilder(NettyNioAsyncHttpClient.builder().protocol(Protocol.HTTP1_1)).build();
    DynamoDbAsyncClient dynamo = DynamoDbAsyncClient.builder().credentialsProvider(credentials).region(region)
        .endpointOverride(URI.create(dynamoEndpoint)).build();
    CloudWatchAsyncClient nowhere = CloudWatchAsyncClient.builder().credentialsProvider(credentials).region(region)
        .endpointOverride(URI.create("http://127.0.0.1:9")).build();
    ConfigsBuilder configs = new ConfigsBuilder(stream, "kcl-" + stream, kinesis, dynamo, nowhere, "worker", Processor::new);
    InitialPositionInStreamExtended oldest = InitialPositionInStreamExtended.newInitialPosition(InitialPositionInStream.TRIM_HORIZON);
    Scheduler scheduler = new Scheduler(configs.checkpointConfig(),
        configs.coordinatorConfig().parentShardPollIntervalMillis(500).shardConsumerDispatchPollIntervalMillis(100),
        configs.leaseManagementConfig().failoverTimeMillis(5000).shardSyncIntervalMillis(1000).leasesRecoveryAuditorExecutionFrequencyMillis(2000)
            .initialPositionInStream(oldest),
        configs.lifecycleConfig(), configs.metricsConfig().metricsLevel(MetricsLevel.NONE).metricsFactory(new NullMetricsFactory()),
        configs.processorConfig(),
        configs.retrievalConfig().retrievalSpecificConfig(new PollingConfig(stream, kinesis).idleTimeBetweenReadsInMillis(200))
            .initialPositionInStreamExtended(oldest));
    Thread thread = new Thread(scheduler);
    thread.setDaemon(true);
    thread.start();
    while (System.in.read() >= 0) {}
    scheduler.startGracefulShutdown().get(30, TimeUnit.SECONDS);
    System.exit(0);
  }

  static class Processor implements ShardRecordProcessor {
    private String shard;

    public void initialize(InitializationInput input) {
      shard = input.shardId();
      say("begins", shard);
    }

    public void processRecords(ProcessRecordsInput input) {
      for (KinesisClientRecord record : input.records()) {
        byte[] data = new byte[record.data().remaining()];
        record.data().get(data);
        String line = record.explicitHashKey() != null ? record.explicitHashKey() : record.partitionKey();
        say("record", shard, String.valueOf(record.aggregated()), line, Base64.getEncoder().encodeToString(data));
      }
      try {
        if (!input.records().isEmpty()) input.checkpointer().checkpoint();
      } catch (Exception error) {
        say("error", error.toString());
      }
    }

    public void leaseLost(LeaseLostInput input) {
      say("lost", shard);
    }

    public void shardEnded(ShardEndedInput input) {
      say("ended", shard);
      try {
        input.checkpointer().checkpoint();
      } catch (Exception error) {
        say("error", error.toString());
      }
    }

    public void shutdownRequested(ShutdownRequestedInput input) {}
  }

  private static synchronized void say(String... words) {
    System.out.println(String.join("\t", words));
    System.out.flush();
  }
}
