// Package pages is the worker's HTTP server: its probes, metrics, a page that shows
// how the mail flows, and asynqmon, which shows the tasks behind it.
//
//	/healthz      200 while the process lives
//	/readyz       200 while mail flows: Redis answers, no relay is held, the worker is not ending
//	/metrics      for Prometheus
//	/             the page, kept up to date by /status.json
//	/history      where a message is, or what became of it, by ID, Message-ID or recipient
//	/pauses       what is paused, with buttons if they are allowed
//	/monitor/     asynqmon
//
// Everything that comes from a message or from a mail server is hostile: it is cut, freed of
// control characters, and put into the page as text alone. Addresses are masked unless
// the settings allow them.
//
// Nothing here holds up the mail: State takes in a few numbers for each message, and
// Redis is asked only when somebody looks, once a second at most.
package pages
