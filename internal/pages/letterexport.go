package pages

import (
	"archive/zip"
	"bufio"
	"encoding/json"
	"io"
	"iter"
	"net/http"
	"path/filepath"
	"time"

	"github.com/mailpouch/mailpouch/internal/redact"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/tasks"
)

// exportedLetter is a line of an export, like that of enqueue dead export. Where addresses are masked it has no message.
type exportedLetter struct {
	ID         string               `json:"id"`
	Queue      string               `json:"queue"`
	Reason     string               `json:"reason"`
	Tries      int                  `json:"tries"`
	At         time.Time            `json:"at"`
	Next       *time.Time           `json:"next,omitempty"`
	Recipients []string             `json:"recipients"`
	Subject    string               `json:"subject"`
	MessageID  string               `json:"message_id,omitempty"`
	Tags       []string             `json:"tags,omitempty"`
	Mailing    string               `json:"mailing,omitempty"`
	History    []tasks.Try          `json:"history,omitempty"`
	Message    *mailer.EmailMessage `json:"message,omitempty"`
	Payload    []byte               `json:"payload,omitempty"` // if there is no message to be read in it
	Missing    []string             `json:"missing,omitempty"` // attachments whose content is lost
}

func (p *letters) exported(l failedLetter) exportedLetter {
	e := exportedLetter{
		ID: l.ID, Queue: l.Queue, Reason: p.view.Reason(l.Reason), Tries: l.Tries, At: l.At, Next: notZero(l.Next),
		Subject: p.view.Text(l.Subject(), maxReason), Tags: l.Tags, Mailing: l.Mailing, Recipients: []string{},
	}
	for _, to := range l.Recipients {
		e.Recipients = append(e.Recipients, p.view.Mailbox(to))
	}
	for _, t := range l.History {
		t.Reason = p.view.Reason(t.Reason)
		e.History = append(e.History, t)
	}
	if l.Message != nil {
		e.MessageID = redact.Line(l.Message.MessageID)
	}
	if p.view.Addresses {
		e.Message, e.Missing = l.Message, l.Missing
		if l.Message == nil {
			e.Payload = l.Payload
		}
	}
	return e
}

// export answers with letters as a file: JSON lines, or messages as they would have been sent, several of them in a ZIP
// file. One letter at a time is in memory.
func (p *letters) export(w http.ResponseWriter, r *http.Request, kind string, meant iter.Seq2[*tasks.DeadLetter, error]) {
	if kind == "eml" && !p.view.Addresses {
		http.Error(w, "Messages have their addresses in them: EMAIL_HTTP_SHOW_ADDRESSES lets them be exported.", http.StatusForbidden)
		return
	}
	name := map[string]string{deadPath: "dead-letters", retriesPath: "retries"}[p.source.path]
	head := w.Header()
	var write func(failedLetter) error
	var end func() error
	control := http.NewResponseController(w)
	if kind == "eml" {
		head.Set("Content-Type", "application/zip")
		name += ".zip"
		archive := zip.NewWriter(w)
		write, end = func(l failedLetter) error { return writeMessage(archive, l) }, archive.Close
	} else {
		head.Set("Content-Type", "application/x-ndjson; charset=utf-8")
		name += ".jsonl"
		buffer := bufio.NewWriter(w)
		lines := json.NewEncoder(buffer)
		lines.SetEscapeHTML(false) // a file
		write, end = func(l failedLetter) error { return lines.Encode(p.exported(l)) }, buffer.Flush
	}
	head.Set("Content-Disposition", `attachment; filename="`+name+`"`)
	for l, err := range meant {
		if err == nil {
			_ = control.SetWriteDeadline(time.Now().Add(writeTimeout)) // as long as it goes on
			var whole failedLetter
			if whole, err = p.source.get(r.Context(), l.Queue, l.ID); p.source.isGone(err) {
				continue
			}
			if err == nil {
				err = write(whole)
			}
		}
		if err != nil {
			p.log.Warn().Err(err).Msg("pages: an export is cut off")
			panic(http.ErrAbortHandler) // a file that looks whole would be worse
		}
	}
	if err := end(); err != nil {
		panic(http.ErrAbortHandler)
	}
}

// writeMessage adds the message of a letter to an archive: as JSON if it cannot be read, or is many.
func writeMessage(archive *zip.Writer, l failedLetter) error {
	name := filepath.Base(l.Queue + "-" + l.ID)
	if l.Message == nil {
		f, err := archive.Create(name + ".json")
		if err != nil {
			return err
		}
		_, err = f.Write(l.Payload)
		return err
	}
	f, err := archive.CreateHeader(&zip.FileHeader{Name: name + ".eml", Method: zip.Deflate, Modified: l.At})
	if err != nil {
		return err
	}
	if _, err := l.Message.WriteTo(f); err != nil {
		_, err = io.WriteString(f, "This message cannot be written: "+err.Error()+"\r\n")
		return err
	}
	return nil
}
