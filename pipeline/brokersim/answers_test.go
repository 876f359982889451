package brokersim

import (
	"encoding/binary"
	"fmt"
	"reflect"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// refuse makes the answer of a broker that has not done what a request asks: each
// thing it names fails with the code.
func refuse(req *request, code int16, level int) []byte {
	asked := parse(req)
	resp := asked.ResponseKind()
	switch asked := asked.(type) { // that name things otherwise than their answers do
	case *kmsg.FindCoordinatorRequest:
		for _, key := range asked.CoordinatorKeys {
			c := kmsg.NewFindCoordinatorResponseCoordinator()
			c.Key, c.NodeID = key, -1
			resp.(*kmsg.FindCoordinatorResponse).Coordinators = append(resp.(*kmsg.FindCoordinatorResponse).Coordinators, c)
		}
	case *kmsg.DescribeGroupsRequest:
		for _, group := range asked.Groups {
			g := kmsg.NewDescribeGroupsResponseGroup()
			g.Group = group
			resp.(*kmsg.DescribeGroupsResponse).Groups = append(resp.(*kmsg.DescribeGroupsResponse).Groups, g)
		}
	case *kmsg.DescribeTransactionsRequest:
		for _, id := range asked.TransactionalIDs {
			s := kmsg.NewDescribeTransactionsResponseTransactionState()
			s.TransactionalID = id
			resp.(*kmsg.DescribeTransactionsResponse).TransactionStates = append(resp.(*kmsg.DescribeTransactionsResponse).TransactionStates, s)
		}
	default:
		mirror(reflect.ValueOf(resp).Elem(), reflect.ValueOf(asked).Elem())
	}
	return encode(req, resp, code, level)
}

// spoil puts the code into the answer of a broker that has done what was asked.
func spoil(req *request, answer []byte, code int16, level int) []byte {
	resp := kmsg.ResponseForKey(req.key)
	resp.SetVersion(req.version)
	body := answer[4:]
	if flexibleHeader(resp) {
		body = body[1:]
	}
	if err := resp.ReadFrom(body); err != nil {
		panic(fmt.Sprintf("network: answer to %s v%d: %v", kmsg.NameForKey(req.key), req.version, err))
	}
	return encode(req, resp, code, level)
}

func parse(req *request) kmsg.Request {
	asked := kmsg.RequestForKey(req.key)
	asked.SetVersion(req.version)
	body := req.body[8:]
	n := int16(binary.BigEndian.Uint16(body)) // client id; -1: none
	body = body[2+max(n, 0):]
	if asked.IsFlexible() {
		body = body[1:] // no tags
	}
	if err := asked.ReadFrom(body); err != nil {
		panic(fmt.Sprintf("network: %s v%d: %v", kmsg.NameForKey(req.key), req.version, err))
	}
	return asked
}

func flexibleHeader(resp kmsg.Response) bool {
	return resp.IsFlexible() && resp.Key() != int16(kmsg.ApiVersions)
}

// encode writes an answer whose every error, at one level, is the code. Where there is
// nothing at that level the whole answer has it.
func encode(req *request, resp kmsg.Response, code int16, level int) []byte {
	resp.SetVersion(req.version)
	if _, ok := resp.(*kmsg.ApiVersionsResponse); ok {
		resp.SetVersion(0) // as a broker does that does not know the version asked in (KIP-511)
	}
	if v := reflect.ValueOf(resp).Elem(); setCodes(v, code, level) == 0 && setCodes(v, code, 0) == 0 {
		panic(fmt.Sprintf("network: an answer to %s v%d has no place for an error", kmsg.NameForKey(req.key), req.version))
	}
	body := binary.BigEndian.AppendUint32(nil, uint32(req.id))
	if flexibleHeader(resp) {
		body = append(body, 0)
	}
	return resp.AppendTo(body)
}

// mirror gives an answer an element for each of its request's, of the same names.
func mirror(resp, asked reflect.Value) {
	for i := range resp.NumField() {
		to, name := resp.Field(i), resp.Type().Field(i).Name
		from := asked.FieldByName(name)
		if !from.IsValid() || name == "Version" || name == "UnknownTags" {
			continue
		}
		switch {
		case to.Type() == from.Type() && to.Kind() != reflect.Slice:
			to.Set(from)
		case to.Kind() != reflect.Slice || to.Type().Elem().Kind() != reflect.Struct || from.Kind() != reflect.Slice:
		default:
			for j := range from.Len() {
				element := reflect.New(to.Type().Elem())
				element.Interface().(interface{ Default() }).Default()
				if from.Type().Elem().Kind() == reflect.Struct {
					mirror(element.Elem(), from.Index(j))
				} else {
					element.Elem().FieldByName("Partition").Set(from.Index(j))
				}
				to.Set(reflect.Append(to, element.Elem()))
			}
		}
	}
}

// setCodes sets the error codes at one level of an answer, or, where level is deepest,
// those that have none below them. It returns how many.
func setCodes(v reflect.Value, code int16, level int) (set int) {
	if level != 0 {
		for _, f := range v.Fields() {
			if f.Kind() != reflect.Slice || f.Type().Elem().Kind() != reflect.Struct {
				continue
			}
			for j := range f.Len() {
				set += setCodes(f.Index(j), code, level-1)
			}
		}
	}
	if f := v.FieldByName("ErrorCode"); f.IsValid() && (level == 0 || level < 0 && set == 0) {
		f.SetInt(int64(code))
		set++
	}
	return set
}

// deepest is the level of the innermost errors.
const deepest = -1
