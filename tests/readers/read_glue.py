"""What boto3 sees of a table in the Glue Data Catalog, as JSON.

usage: read_glue.py ENDPOINT DATABASE.TABLE show
       read_glue.py ENDPOINT DATABASE.TABLE annotate COLUMN    as a person does: a comment, a parameter, a description
"""

import json
import sys

import boto3

endpoint, name, how = sys.argv[1:4]
database, table = name.split(".")
glue = boto3.client(
    "glue", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test"
)


def columns(listed):
    return [[column["Name"], column["Type"], column.get("Comment", "")] for column in listed]


try:
    found = glue.get_table(DatabaseName=database, Name=table)["Table"]
except glue.exceptions.EntityNotFoundException:
    print("null")
    sys.exit()
if how == "annotate":
    entry = {key: found[key] for key in ("Name", "TableType", "StorageDescriptor", "PartitionKeys", "Parameters") if key in found}
    for column in entry["StorageDescriptor"]["Columns"]:
        if column["Name"] == sys.argv[4]:
            column["Comment"] = "said by a person"
    entry["Parameters"]["team"] = "sales"
    entry["Description"] = "described by a person"
    glue.update_table(DatabaseName=database, TableInput=entry)
try:
    versions = len(glue.get_table_versions(DatabaseName=database, TableName=table)["TableVersions"])
except glue.exceptions.ClientError:
    versions = None  # ministack doesn't tell
pages = glue.get_paginator("get_partitions").paginate(DatabaseName=database, TableName=table)
storage = found["StorageDescriptor"]
print(
    json.dumps(
        {
            "columns": columns(storage["Columns"]),
            "keys": columns(found["PartitionKeys"]),
            "location": storage["Location"],
            "formats": [storage["InputFormat"], storage["OutputFormat"], storage["SerdeInfo"]["SerializationLibrary"]],
            "type": found["TableType"],
            "description": found.get("Description"),
            "parameters": found["Parameters"],
            "partitions": sorted(
                [partition["Values"], partition["StorageDescriptor"]["Location"], len(partition["StorageDescriptor"]["Columns"])]
                for page in pages
                for partition in page["Partitions"]
            ),
            "versions": versions,
        }
    )
)
