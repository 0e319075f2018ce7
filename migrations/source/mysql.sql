-- The user that Binlake connects as, for MySQL 8.0 and newer.
-- Run it as an administrator, with a password of your own.
CREATE USER IF NOT EXISTS 'binlake'@'%' IDENTIFIED BY 'choose a password';
-- The binlog, and where it ends.
GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO 'binlake'@'%';
-- The rows of the tables. Instead of *.* you may name databases.
GRANT SELECT ON *.* TO 'binlake'@'%';
-- The short lock with which a snapshot begins. RDS and Aurora refuse the
-- first kind. Without both, snapshots are fenced by GTIDs.
GRANT RELOAD ON *.* TO 'binlake'@'%';
GRANT LOCK TABLES ON *.* TO 'binlake'@'%';
-- If you like: errors can name the session that keeps a lock from Binlake.
GRANT PROCESS ON *.* TO 'binlake'@'%';
