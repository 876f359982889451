package schemas

// Kind is an event's type.
type Kind uint8

// The kinds of events, in the order of their counters in a profile.
const (
	View Kind = iota
	AddToCart
	RemoveFromCart
	Purchase
	Refund
	Search
	Kinds // how many there are
)

// Event is one decoded storefront event. Its slices alias the record it was
// decoded from, or the decoder's scratch memory: copy what must outlive the
// next Decode. An absent field is nil, and so is a text or an array that was
// sent empty.
type Event struct {
	ID, User []byte
	At       Millis // event time, as sent
	Kind     Kind

	// Amount is what a purchase brought or a refund gave back, in minor units of
	// the reporting currency, never negative; 0 for other kinds.
	Amount int64

	// Worth is what was put into the cart or taken out of it, price times quantity,
	// likewise, and never negative; 0 where no price was sent or no rate of its
	// currency is known, and for other kinds.
	Worth int64

	OrderID, SessionID, CartID        []byte
	ProductID, Category, Brand        []byte
	Channel, Campaign, URL            []byte
	Timezone                          []byte  // the shopper's, by its IANA name if it is one
	Birthday                          []byte  // the shopper's, if it is one: see BirthdayOf
	Currency                          [3]byte // ISO 4217, as sent, or the contract's default
	Price, Quantity, Revenue          int64   // millionths, as sent; a Quantity that was not sent is one piece
	HasPrice, HasQuantity, HasRevenue bool
	Items                             []byte // the raw JSON array, see EachItem
	Properties                        []byte // the raw JSON object
	Extra                             []byte // unknown fields, as one JSON object; the last of each name
}

// Item is one element of a purchase's items.
type Item struct {
	ProductID, Category, Brand []byte
	Price, Quantity            int64 // millionths; a Quantity that was not sent is one piece
	HasPrice, HasQuantity      bool
}

// field is a field of the contract. The order is the one in which fields are
// checked: the first that is at fault gives the reason.
type field uint8

const (
	fieldEventID field = iota
	fieldType
	fieldUserID
	fieldTime
	fieldSessionID
	fieldProductID
	fieldCategory
	fieldBrand
	fieldPrice
	fieldQuantity
	fieldCurrency
	fieldCartID
	fieldOrderID
	fieldRevenue
	fieldItems
	fieldChannel
	fieldCampaign
	fieldURL
	fieldTimezone
	fieldBirthday
	fieldProperties
	fields // how many there are
)

// fieldOf returns the field of a name, or fields. A switch on the converted
// bytes does not allocate.
func fieldOf(name []byte) field {
	switch string(name) {
	case "event_id":
		return fieldEventID
	case "type":
		return fieldType
	case "user_id":
		return fieldUserID
	case "time":
		return fieldTime
	case "session_id":
		return fieldSessionID
	case "product_id":
		return fieldProductID
	case "category":
		return fieldCategory
	case "brand":
		return fieldBrand
	case "price":
		return fieldPrice
	case "quantity":
		return fieldQuantity
	case "currency":
		return fieldCurrency
	case "cart_id":
		return fieldCartID
	case "order_id":
		return fieldOrderID
	case "revenue":
		return fieldRevenue
	case "items":
		return fieldItems
	case "channel":
		return fieldChannel
	case "campaign":
		return fieldCampaign
	case "url":
		return fieldURL
	case "timezone":
		return fieldTimezone
	case "birthday":
		return fieldBirthday
	case "properties":
		return fieldProperties
	}
	return fields
}

// EventFields are the names of the contract's fields, in the order in which they are
// checked.
func EventFields() (names []string) {
	for f := range fields {
		names = append(names, f.String())
	}
	return names
}

// String returns the field's name in the contract.
func (f field) String() string {
	switch f {
	case fieldEventID:
		return "event_id"
	case fieldType:
		return "type"
	case fieldUserID:
		return "user_id"
	case fieldTime:
		return "time"
	case fieldSessionID:
		return "session_id"
	case fieldProductID:
		return "product_id"
	case fieldCategory:
		return "category"
	case fieldBrand:
		return "brand"
	case fieldPrice:
		return "price"
	case fieldQuantity:
		return "quantity"
	case fieldCurrency:
		return "currency"
	case fieldCartID:
		return "cart_id"
	case fieldOrderID:
		return "order_id"
	case fieldRevenue:
		return "revenue"
	case fieldItems:
		return "items"
	case fieldChannel:
		return "channel"
	case fieldCampaign:
		return "campaign"
	case fieldURL:
		return "url"
	case fieldTimezone:
		return "timezone"
	case fieldBirthday:
		return "birthday"
	case fieldProperties:
		return "properties"
	case fields:
	}
	return "?"
}

// itemField returns the place of an item's field among itemFields, or itemFields.
func itemField(name []byte) int {
	switch string(name) {
	case "product_id":
		return itemProductID
	case "category":
		return itemCategory
	case "brand":
		return itemBrand
	case "price":
		return itemPrice
	case "quantity":
		return itemQuantity
	}
	return itemFields
}

const (
	itemProductID = iota
	itemCategory
	itemBrand
	itemPrice
	itemQuantity
	itemFields // how many there are
)

// kindOf is ParseKind for the decoder.
func kindOf(name []byte) (Kind, bool) {
	switch string(name) {
	case "view":
		return View, true
	case "add_to_cart":
		return AddToCart, true
	case "remove_from_cart":
		return RemoveFromCart, true
	case "purchase":
		return Purchase, true
	case "refund":
		return Refund, true
	case "search":
		return Search, true
	}
	return 0, false
}
