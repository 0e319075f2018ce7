"""The other side of aggregated records: `kpl.py aggregate` writes one, `kpl.py deaggregate` prints the records of the one that it is given.

Input and output are JSON lines: {"partition_key", "explicit_hash_key", "data"}; an aggregated record is base64.
"""

import base64
import json
import sys

from aws_kinesis_agg.aggregator import RecordAggregator
from aws_kinesis_agg.deaggregator import deaggregate_records


def aggregate(lines):
    aggregator = RecordAggregator()
    for line in lines:
        record = json.loads(line)
        full = aggregator.add_user_record(record["partition_key"], base64.b64decode(record["data"]), record["explicit_hash_key"])
        assert full is None, "the records don't fit into one"
    _, _, data = aggregator.clear_and_get().get_contents()
    print(base64.b64encode(data).decode())


def deaggregate(lines):
    data = lines[0].strip()
    kinesis = {"sequenceNumber": "1", "partitionKey": "0", "data": data, "approximateArrivalTimestamp": 0, "kinesisSchemaVersion": "1.0"}
    for record in deaggregate_records([{"kinesis": kinesis, "eventSource": "aws:kinesis", "eventID": "shardId-000000000000:1"}]):
        kinesis = record["kinesis"]
        print(json.dumps({"partition_key": kinesis["partitionKey"], "explicit_hash_key": kinesis.get("explicitHashKey"), "data": kinesis["data"].decode()}))


{"aggregate": aggregate, "deaggregate": deaggregate}[sys.argv[1]](sys.stdin.readlines())
