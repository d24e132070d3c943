// Render templates as Ollama does: with Go's own text/template and Ollama's function json.
package main

import (
	"encoding/json"
	"os"
	"strings"
	"text/template"
)

// spelled is written as JSON where a template prints it.
type spelled struct{ raw json.RawMessage }

func (s *spelled) UnmarshalJSON(raw []byte) error { return s.raw.UnmarshalJSON(raw) }

func (s spelled) String() string { return toJSON(s.raw) }

type function struct {
	Name      string
	Arguments spelled
}

type call struct{ Function function }

type message struct {
	Role, Content, Thinking string
	ToolCalls               []call
}

type data struct {
	System, Response, ThinkLevel string
	Messages                     []*message
	Tools                        []spelled
	Think, IsThinkSet            bool
}

type task struct {
	Template string
	Data     data
}

func toJSON(value any) string {
	text, err := json.Marshal(value)
	if err != nil {
		panic(err)
	}
	return string(text)
}

func main() {
	var tasks []task
	if err := json.NewDecoder(os.Stdin).Decode(&tasks); err != nil {
		panic(err)
	}
	rendered := make([]string, len(tasks))
	for place, each := range tasks {
		parsed, err := template.New("").Option("missingkey=zero").
			Funcs(template.FuncMap{"json": toJSON}).Parse(each.Template)
		if err != nil {
			panic(err)
		}
		var text strings.Builder
		given := map[string]any{
			"System": each.Data.System, "Messages": each.Data.Messages,
			"Tools": each.Data.Tools, "Response": "", "Think": each.Data.Think,
			"ThinkLevel": each.Data.ThinkLevel, "IsThinkSet": each.Data.IsThinkSet,
		}
		if err := parsed.Execute(&text, given); err != nil {
			panic(err)
		}
		rendered[place] = text.String()
	}
	if err := json.NewEncoder(os.Stdout).Encode(rendered); err != nil {
		panic(err)
	}
}
