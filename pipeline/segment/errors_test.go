package segment

import (
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
)

// Every error says what, where and what to do: testdata/errors.txt has them word for
// word (go test ./pipeline/segment -rewrite writes it again).
func TestErrors(t *testing.T) {
	datadriven.RunTest(t, "testdata/errors.txt", func(_ *testing.T, d *datadriven.TestData) string {
		names := []string{"set.yaml"}
		if d.HasArg("files") {
			var list []string
			for _, a := range d.CmdArgs {
				list = append(list, a.Vals...)
			}
			names = list
		}
		var files []File
		for i, text := range strings.Split(d.Input, "\n---\n") {
			files = append(files, File{Name: names[i], Text: []byte(text)})
		}
		if _, err := Compile(Options{Exponent: 2}, files...); err != nil {
			return err.Error() + "\n"
		}
		return "fine\n"
	})
}
