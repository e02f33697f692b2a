"""Short passages of ordinary English, of several kinds: stories, talk, instructions, reports, lists and code."""

from __future__ import annotations

__all__ = ["TEXTS"]

TEXTS: tuple[str, ...] = (
    "The baker opened her shop before the sun came up. She lit the oven, washed her hands, and began to fold the dough. "
    "By seven the whole street smelled of bread, and the first people stood at the door, waiting for the baker to open it.",
    '"Did you bring the map?" asked Tom. "I thought you had the map," said Lucy. They looked at each other, then at the '
    "forest in front of them, and then Tom began to laugh. Lucy did not laugh. She had told Tom about the map twice.",
    "To change the filter, first turn off the pump. Open the cover, take out the old filter, and rinse the housing with "
    "clean water. Put in the new filter, close the cover, and turn the pump on again. Check that the cover does not leak.",
    "The river rises in the mountains, runs north for about 200 miles, and reaches the sea near the old harbour. In dry "
    "years the river carries little water; in wet years it floods the fields on both sides, and the roads are closed.",
    "Shopping list:\n- two loaves of bread\n- six eggs\n- a pound of butter\n- three lemons\n- a bag of rice\n- tea\n"
    "Ask whether the lemons are fresh. If they are not, buy two oranges instead, and a second bag of rice.",
    "def mean(values):\n    total = 0\n    for value in values:\n        total = total + value\n    return total / len(values)"
    "\n\nprint(mean([1, 2, 3]))\nprint(mean([4, 5, 6]))\n",
    "The committee met on Tuesday to discuss the budget. Mrs. Allen said that the budget was too small, Mr. Reed said that "
    "it was too large, and the chair said that the committee would meet again on Thursday to discuss the budget once more.",
    "Once there was a king who had three daughters. The first daughter asked for a ring, the second daughter asked for a "
    "horse, and the third daughter asked for nothing at all. The king wondered about this, and he asked her why.",
    "Light travels faster than sound. When lightning strikes, we see the flash at once, but the thunder comes later. If "
    "you count the seconds between the flash and the thunder, you can tell how far away the lightning was.",
    "Dear Anna,\nthank you for your letter. The weather here is cold, but the house is warm, and the children are well. "
    "Peter has started school. He says that school is easy, and that the other children are slow.\nWith love,\nMaria",
    "The train to London leaves at 8:15, the train to Oxford at 8:40, and the train to Bath at 9:05. The train to London "
    "stops at every station. Passengers to Bath should change at Reading, where the train waits for six minutes.",
    "Whales are mammals. They breathe air, they feed their young with milk, and they keep a constant temperature. Although "
    "whales live in the sea like fish, whales are closer to cows than to fish, as their bones and their blood show.",
    "He knocked at the door, but nobody answered. He knocked again, louder this time. Somewhere in the house a dog began "
    "to bark. At last he heard steps, the door opened a little, and an old man looked out and said that he was late.",
    "Question: what is the capital of France?\nAnswer: the capital of France is Paris.\nQuestion: what is the capital of "
    "Italy?\nAnswer: the capital of Italy is Rome.\nQuestion: what is the capital of Spain?\nAnswer:",
    "The company reported a profit of 12 million dollars, up from 9 million dollars a year earlier. Sales in Europe grew "
    "by 4 percent, while sales in Asia fell by 2 percent. The company expects that sales will grow again next year.",
    "Rain fell all night. In the morning the street was a river, and the neighbours carried chairs, lamps and carpets up "
    "the stairs. Nobody spoke. At noon the rain stopped, and the neighbours carried everything down the stairs again.",
    "If a number is even, divide it by two; if it is odd, multiply it by three and add one. Start with seven: seven is odd, "
    "so the next number is twenty-two; twenty-two is even, so the next number is eleven; eleven is odd, and so on.",
    "The painting shows a woman at a window. She holds a letter in her left hand, and her right hand rests on the table. "
    "The light comes from the window, falls on the letter, and leaves the rest of the room in the dark.",
    "import json\n\nwith open('names.json') as file:\n    names = json.load(file)\n\nfor name in names:\n    print(name)\n\n"
    "with open('names.json', 'w') as file:\n    json.dump(sorted(names), file)\n",
    "Wash the potatoes and cut them into slices. Heat the oil in a large pan, add the potatoes, and fry the potatoes for ten "
    "minutes. Add salt, pepper and a little garlic. Serve the potatoes hot, with bread and a green salad.",
    "The old bridge was built in 1742 and the new bridge in 1931. The old bridge is made of stone; the new bridge is made of "
    "steel. Most people use the new bridge, but in summer they walk across the old bridge to the market.",
    "Our team lost the first game by two goals, won the second game by one goal, and lost the third game again. The coach "
    "was not angry. He said that the team had played well, and that the third game had been a matter of luck.",
    "Some birds fly south in autumn and come back in spring. How do they find the way? Some follow the coast, some follow "
    "the stars, and some seem to feel the magnetic field of the earth. Young birds often fly with old birds.",
    "The contract begins on the first of May and ends on the last of April. Either party may end the contract earlier, in "
    "writing, with three months' notice. If the contract is not ended, it continues for another year.",
)
