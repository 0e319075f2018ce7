-- The user that Binlake connects as, for MariaDB 10.6 and newer.
-- Run it as an administrator, with a password of your own.
CREATE USER IF NOT EXISTS 'binlake'@'%' IDENTIFIED BY 'choose a password';
-- The binlog, and where it ends.
GRANT REPLICATION SLAVE, BINLOG MONITOR ON *.* TO 'binlake'@'%';
-- The rows of the tables. Instead of *.* you may name databases.
GRANT SELECT ON *.* TO 'binlake'@'%';
-- Only a busy server needs it: the short lock with which a snapshot begins.
GRANT RELOAD ON *.* TO 'binlake'@'%';
-- If you like: errors can name the session that keeps a lock from Binlake.
GRANT PROCESS ON *.* TO 'binlake'@'%';
