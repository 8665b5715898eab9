// The conformance suite of the Durable Streams base protocol, against the server in DURABLE_STREAMS_URL. Run by
// test_conformance.py, which reads the report.
import { runConformanceTests } from '@durable-streams/server-conformance-tests'

runConformanceTests({
  baseUrl: process.env.DURABLE_STREAMS_URL,
  longPollTimeoutMs: 2000,
  subscriptions: false
})
