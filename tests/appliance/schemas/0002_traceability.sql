BEGIN TRANSACTION;
CREATE TABLE "_sqlite_migrations" (
   "id" INTEGER PRIMARY KEY,
   "migration_set" TEXT,
   "name" TEXT,
   "applied_at" TEXT
);
INSERT INTO "_sqlite_migrations" VALUES(1,'lineguard-station','0001_station','2026-11-23 22:54:18.193365+00:00');
INSERT INTO "_sqlite_migrations" VALUES(2,'lineguard-station','0002_traceability','2026-11-27 15:21:27.403287+00:00');
CREATE TABLE "alert" (
   "id" INTEGER PRIMARY KEY,
   "utc" TEXT NOT NULL,
   "kind" TEXT NOT NULL,
   "message" TEXT NOT NULL,
   "acknowledged_by" TEXT NOT NULL DEFAULT '',
   "acknowledged_utc" TEXT NOT NULL DEFAULT ''
);
INSERT INTO "alert" VALUES(1,'2026-11-23T22:54:18.200796Z','DRIFT','it drifts','','');
INSERT INTO "alert" VALUES(2,'2026-11-23T22:54:18.201759Z','CAMERA','gone','Jana','2026-11-23T22:54:18.202262Z');
CREATE TABLE "audit" (
   "id" INTEGER PRIMARY KEY,
   "utc" TEXT,
   "actor" TEXT,
   "action" TEXT,
   "old" TEXT,
   "new" TEXT,
   "hash" TEXT
);
INSERT INTO "audit" VALUES(1,'2026-11-23T22:54:18.194764Z','daemon','start','','bundle','efc886b4cf83fb11447ed8a5a7b21ad462946d3b819d054875f816d646b3a8ba');
INSERT INTO "audit" VALUES(2,'2026-11-23T22:54:18.200796Z','daemon','alert 1 DRIFT','','it drifts','2cc8d38f9e60ff06cd5c8ba5ed5438c8bc4f14ab95e48d4c0c077e69f1f6d30b');
INSERT INTO "audit" VALUES(3,'2026-11-23T22:54:18.201759Z','daemon','alert 2 CAMERA','','gone','ee61db28fb901862a5b85ce8fa66656c620e98d2e3b7dd93a2a30109a61a60a6');
INSERT INTO "audit" VALUES(4,'2026-11-23T22:54:18.202262Z','Jana','acknowledge alert 2','open','acknowledged','fd6a37e8c695d018a644e53edd5cd7744ce080beaffb9ae863cab595839ed700');
INSERT INTO "audit" VALUES(5,'2026-11-27T15:21:27.404519Z','Jana','review of row 3','OK','OK','cad0231a364d67ab3518590be92f01ff37049452361f45eb58e14648288dc8c6');
CREATE TABLE audit_head (id INTEGER PRIMARY KEY CHECK (id = 1), entries INTEGER NOT NULL, hash TEXT NOT NULL);
INSERT INTO "audit_head" VALUES(1,5,'cad0231a364d67ab3518590be92f01ff37049452361f45eb58e14648288dc8c6');
CREATE TABLE "histogram" (
   "minute" TEXT,
   "camera" TEXT,
   "class" TEXT,
   "bundle" TEXT,
   "bin" INTEGER,
   "parts" INTEGER,
   PRIMARY KEY ("minute", "camera", "class", "bundle", "bin")
);
INSERT INTO "histogram" VALUES('2026-01-01T00:00','top','ok','bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb',1,9);
INSERT INTO "histogram" VALUES('2026-01-01T00:00','top','dent','bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb',18,3);
CREATE TABLE "review" (
   "id" INTEGER PRIMARY KEY,
   "seq" INTEGER NOT NULL REFERENCES "verdict"("seq"),
   "utc" TEXT NOT NULL,
   "operator" TEXT NOT NULL,
   "decision" TEXT NOT NULL
);
INSERT INTO "review" VALUES(1,3,'2026-11-27T15:21:27.404519Z','Jana','OK');
CREATE TABLE "tally" (
   "camera" TEXT,
   "reason" TEXT,
   "parts" INTEGER,
   PRIMARY KEY ("camera", "reason")
);
INSERT INTO "tally" VALUES('top','',9);
INSERT INTO "tally" VALUES('top','DEFECT',3);
CREATE TABLE "verdict" (
   "seq" INTEGER PRIMARY KEY,
   "camera" TEXT NOT NULL,
   "trigger" INTEGER,
   "frame" TEXT,
   "serial" TEXT,
   "lot" TEXT,
   "utc" TEXT,
   "mono_ns" INTEGER,
   "boot_id" TEXT,
   "decision" TEXT,
   "verdict" TEXT NOT NULL,
   "reason" TEXT NOT NULL,
   "detail" TEXT,
   "top_class" TEXT,
   "defect_probability" REAL,
   "logits" BLOB,
   "crc" INTEGER,
   "bundle" TEXT NOT NULL,
   "read_us" INTEGER,
   "wait_us" INTEGER,
   "engine_us" INTEGER,
   "total_us" INTEGER
, batch INTEGER, position INTEGER);
INSERT INTO "verdict" VALUES(1,'top',0,'part-00001.png','1','L1','2026-01-01T00:00:01.000000Z',1000000000,'boot','OK','PASS','','','ok',0.1,X'0001020304050607',1,'bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb',1,2,3,4,4,0);
INSERT INTO "verdict" VALUES(2,'top',1,'part-00002.png','2','L1','2026-01-01T00:00:02.000000Z',2000000000,'boot','OK','PASS','','','ok',0.1,X'0001020304050607',2,'bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb',1,2,3,4,4,1);
INSERT INTO "verdict" VALUES(3,'top',2,'part-00003.png','3','L1','2026-01-01T00:00:03.000000Z',3000000000,'boot','OK','PASS','','','ok',0.1,X'0001020304050607',3,'bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb',1,2,3,4,4,2);
INSERT INTO "verdict" VALUES(4,'top',3,'part-00004.png','4','L1','2026-01-01T00:00:04.000000Z',4000000000,'boot','DEFECT','REJECT','DEFECT','','dent',0.9,X'0001020304050607',4,'bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb',1,2,3,4,4,3);
INSERT INTO "verdict" VALUES(5,'top',4,'part-00005.png','5','L1','2026-01-01T00:00:05.000000Z',5000000000,'boot','OK','PASS','','','ok',0.1,X'0001020304050607',5,'bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb',1,2,3,4,4,0);
INSERT INTO "verdict" VALUES(6,'top',5,'part-00006.png','6','L1','2026-01-01T00:00:06.000000Z',6000000000,'boot','OK','PASS','','','ok',0.1,X'0001020304050607',6,'bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb',1,2,3,4,4,1);
INSERT INTO "verdict" VALUES(7,'top',6,'part-00007.png','7','L1','2026-01-01T00:00:07.000000Z',7000000000,'boot','OK','PASS','','','ok',0.1,X'0001020304050607',7,'bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb',1,2,3,4,4,2);
INSERT INTO "verdict" VALUES(8,'top',7,'part-00008.png','8','L1','2026-01-01T00:00:08.000000Z',8000000000,'boot','DEFECT','REJECT','DEFECT','','dent',0.9,X'0001020304050607',8,'bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb',1,2,3,4,4,3);
INSERT INTO "verdict" VALUES(9,'top',8,'part-00009.png','9','L1','2026-01-01T00:00:09.000000Z',9000000000,'boot','OK','PASS','','','ok',0.1,X'0001020304050607',9,'bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb',1,2,3,4,4,0);
INSERT INTO "verdict" VALUES(10,'top',9,'part-00010.png','10','L1','2026-01-01T00:00:10.000000Z',10000000000,'boot','OK','PASS','','','ok',0.1,X'0001020304050607',10,'bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb',1,2,3,4,4,1);
INSERT INTO "verdict" VALUES(11,'top',10,'part-00011.png','11','L1','2026-01-01T00:00:11.000000Z',11000000000,'boot','OK','PASS','','','ok',0.1,X'0001020304050607',11,'bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb',1,2,3,4,4,2);
INSERT INTO "verdict" VALUES(12,'top',11,'part-00012.png','12','L1','2026-01-01T00:00:12.000000Z',12000000000,'boot','DEFECT','REJECT','DEFECT','','dent',0.9,X'0001020304050607',12,'bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb',1,2,3,4,4,3);
CREATE UNIQUE INDEX "idx__sqlite_migrations_migration_set_name"
    ON "_sqlite_migrations" ("migration_set", "name");
CREATE INDEX verdict_rejects ON verdict (seq) WHERE verdict = 'REJECT';
CREATE TRIGGER audit_no_update BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END;
CREATE TRIGGER audit_no_delete BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END;
CREATE INDEX verdict_serial ON verdict (serial);
COMMIT;
