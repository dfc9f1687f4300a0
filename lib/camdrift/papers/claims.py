"""The claims of all four papers."""

from camdrift.papers.chakraborty2022.claims import CLAIMS as OF_CHAKRABORTY
from camdrift.papers.chakraborty2022.claims import PAPER as CHAKRABORTY
from camdrift.papers.klawikowska2020.claims import CLAIMS as OF_KLAWIKOWSKA
from camdrift.papers.klawikowska2020.claims import PAPER as KLAWIKOWSKA
from camdrift.papers.renkhoff2022.claims import CLAIMS as OF_RENKHOFF
from camdrift.papers.renkhoff2022.claims import PAPER as RENKHOFF
from camdrift.papers.tan2023.claims import CLAIMS as OF_TAN
from camdrift.papers.tan2023.claims import PAPER as TAN

PAPERS = (RENKHOFF, TAN, KLAWIKOWSKA, CHAKRABORTY)
CLAIMS = (*OF_RENKHOFF, *OF_TAN, *OF_KLAWIKOWSKA, *OF_CHAKRABORTY)
