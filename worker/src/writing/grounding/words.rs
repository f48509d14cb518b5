//! Words that decide how two sentences are compared: of English above all, and of the languages in which
//! posts are mostly asked for.

use std::collections::HashSet;
use std::sync::LazyLock;

type Words = LazyLock<HashSet<&'static str>>;

macro_rules! words {
    ($list:literal) => {
        LazyLock::new(|| $list.split_whitespace().collect())
    };
}

/// Words with which sentences begin and that are no names.
pub(crate) static OPENERS: Words = words!(
    "a about according additionally after all also although an and another any as at because \
    before both but by compared currently depending despite during each even every finally \
    first for fortunately from furthermore generally given he hence her here his how however i \
    if in indeed initially instead it its last later like many meanwhile moreover most my \
    nevertheless now of often on once one only other others our over people second several she \
    similarly since so some sometimes still such that the their then there therefore these they \
    third this those though through thus to today two typically under unlike until usually we \
    what when where whether which while who with within without yet you your aber als am auch \
    auf aus bei beim da dabei damit das dass daher der des die dies diese dieser dieses doch \
    durch ein eine einen einer er es für ihr ihre im ist man mit nach nur ob sein seit sie sind \
    um und viele von vor wenn wer wie wir zu zudem au aussi aux avec ce ces cet cette dans de \
    depuis elle elles en et il ils l la le les leur leurs mais ou par pour quand qui si son sur \
    un une al algunos con como cuando del desde donde el ella ellos entre esta este esto hay \
    los las más muchos no para pero por que según se su sus también una y"
);

/// Longer words that say nothing of their own.
pub(crate) static CONNECTIVES: Words = words!(
    "about also although another because been being both could does each even from have having \
    here however into itself just like many moreover much often other should since some such \
    than that their them then there therefore these they this those through thus very well were \
    what when where which while will with would your aber auch dass dies diese dieser dieses \
    durch eine einem einen einer eines haben hatte ihre ihren kann können nach noch oder sein \
    seine seinen sich sind sowie über viele waren wenn werden wird wurde wurden zwischen aussi \
    avec cette comme dans elle elles entre être leur leurs mais même nous pour plus sont vous \
    como cuando desde donde ella ellos esta este esto para pero porque sobre también tiene is \
    are was be has had do did can may might must got get gets hat war est ont ha son es fue it \
    its too"
);

/// Words that turn what a sentence says into something else: a source must have them, too.
pub(crate) static DECISIVE: Words = words!(
    "second third fourth fifth above after all always before below best better decrease decreased decreases down every \
    fall falls fell fewer fewest first half high higher highest increase increased increases \
    large larger largest last least less long longer longest low lower lowest maximum minimum \
    more most often only rarely rise rises rose seldom short shorter shortest small smaller \
    smallest sometimes twice until up without worse worst alle erste höher immer länger letzte \
    mehr niedriger nur kleiner größer kürzer vor weniger moins plus premier toujours tous mayor \
    menor menos más primer siempre sin todos"
);

/// Numbers as words, and what stands for one.
pub(crate) static NUMBERS: Words = words!(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fifteen \
    fourteen sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million \
    billion third quarter dozen double triple zwei drei vier fünf sechs sieben acht neun zehn \
    elf zwölf zwanzig hundert tausend millionen milliarde milliarden doppelt deux trois quatre \
    cinq sept huit neuf dix onze douze vingt cent mille millions milliard milliards dos tres \
    cuatro cinco seis siete ocho nueve diez once doce veinte cien ciento mil millones"
);

/// Words that deny.
pub(crate) static NEGATIONS: Words = words!(
    "not no never none nobody nothing neither nor cannot hardly scarcely without false untrue \
    nicht kein keine keinen keinem keiner keines nie niemals niemand nichts ohne weder pas \
    jamais aucun aucune sans personne ningún ninguna ninguno nunca jamás sin nadie non mai \
    nessun nessuno não nenhum nenhuma sem niet geen nooit не нет никогда без nigdy bez لا لم لن \
    ليس ليست غير לא אין नहीं không chưa tidak bukan değil"
);

/// Words between a clause and one that denies something else.
pub(crate) static BOUNDARIES: Words =
    words!("and but or while although und aber oder et mais ou y pero e ma");
